"""A model as files, and back: weights in safetensors, all else in JSON; nothing in them can run."""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import anndata
import mudata
import numpy as np
import torch
from anndata import AnnData
from anndata.io import write_h5ad
from mudata import MuData, write_h5mu
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.model._utils import parse_device_args

from countsdiff.core.denoiser import Denoiser
from countsdiff.core.heads import get_head
from countsdiff.core.loss import get_weight
from countsdiff.core.schedule import get_schedule
from countsdiff.counts import align_genes
from countsdiff.files import digest
from countsdiff.model._base import CellModel
from countsdiff.model._record import FORMAT, Record, Registry, check_record, with_later_weights
from countsdiff.model_files import (
    ModelFileError,
    believing,
    check_weights,
    read_document,
    read_weights,
    replacing,
    write_document,
    write_weights,
)
from countsdiff.nn import backbone_class

_RECORD, _WEIGHTS, _ANNDATA, _MUDATA = "model.json", "model.safetensors", "adata.h5ad", "mdata.h5mu"
_INDICES = ("train_indices", "validation_indices", "test_indices")
_KEPT = (  # attributes, but for a last "_"
    "design",
    "is_trained",
    "starts_from_reference",
    "learned_from_data",
    "share_hidden",
    "history",
    *_INDICES,
)


class SavedModel(CellModel):
    """Saving and loading, in the place of scvi-tools' own, which pickles."""

    def save(
        self,
        dir_path: str | Path,
        prefix: str | None = None,
        overwrite: bool = False,
        save_anndata: bool = False,
        **anndata_write_kwargs: Any,
    ) -> None:
        """Write the model to a folder: weights to ``model.safetensors``, everything else to ``model.json``.

        Neither can hold a program. They appear together, complete, or not at all: if anything fails, what was there
        before stays.

        Parameters
        ----------
        dir_path
            Folder; it is created.
        prefix
            Put before the names of the files.
        overwrite
            Whether the folder may exist. Other files in it stay.
        save_anndata
            Whether to write the data, too, as ``adata.h5ad`` or ``mdata.h5mu``.
        **anndata_write_kwargs
            For :meth:`anndata.AnnData.write_h5ad`.

        Raises
        ------
        ValueError
            If the folder exists and may not, a weight is not a number, or the model was given a schedule, a loss weight
            or a network that has no name to be built by.
        TypeError
            If a category or another value is neither text nor number, which only a pickle could hold.
        """
        folder, prefix = Path(dir_path), prefix or ""
        if folder.exists() and not (overwrite and folder.is_dir()):
            raise ValueError(f"{folder} already exists; give another folder, or overwrite=True to write into it.")
        if anndata_write_kwargs and not save_anndata:
            raise TypeError(f"{next(iter(anndata_write_kwargs))!r} is for writing data; give save_anndata=True, too.")
        if save_anndata and self.adata is None:
            raise ValueError("The model was loaded without data, so that there are none to save.")
        self._check_by_name()
        record = {
            "class_name": type(self).__name__,
            "versions": {package: version(package) for package in ("countsdiff", "scvi-tools", "torch")},
            "settings": dict(self.init_params_["non_kwargs"]),
            "registry": self.registry_,
            **{name: getattr(self, f"{name}_") for name in _KEPT},
        }
        with replacing(folder, last=prefix + _RECORD) as new:
            if save_anndata:
                # functions: the methods would have data on disk look for themselves in the new file from then on
                if isinstance(self.adata, MuData):
                    write_h5mu(new / (prefix + _MUDATA), self.adata, **anndata_write_kwargs)
                else:
                    write_h5ad(new / (prefix + _ANNDATA), self.adata, **anndata_write_kwargs)
            write_weights(self.module, new / (prefix + _WEIGHTS))
            checksum = digest(new / (prefix + _WEIGHTS))
            write_document({**record, "weights_sha256": checksum}, new / (prefix + _RECORD), FORMAT)
            self._read_record(new, prefix)  # what cannot be read again must not replace what can

    def _check_by_name(self) -> None:
        """Check that the model is what its settings describe, of which :meth:`load` builds it again."""
        named, times, denoiser = self.init_params_["non_kwargs"], self.module.times, self.module.denoiser
        grid = torch.linspace(0.0, 1.0, 33, dtype=torch.float64)
        same = {
            "schedule": torch.equal(times.schedule(grid).p, get_schedule(named["schedule"])(grid).p),
            "weight": get_weight(times.weight) is get_weight(named["weight"]),
            "spacing": times.spacing == named["spacing"],
            "head": type(denoiser) is Denoiser and type(denoiser.head) is type(get_head(named["head"], 1)),
            "backbone": type(denoiser.backbone) is backbone_class(named["backbone"]),
        }
        if others := [name for name, is_same in same.items() if not is_same]:
            raise ValueError(
                f"The model's {others[0]} is not {named[others[0]]!r}, which it was made with, and could not be built "
                "again from a file; give it a name, see 'Extending' in the documentation."
            )

    @classmethod
    def load(
        cls,
        dir_path: str | Path,
        adata: AnnData | MuData | bool | None = None,
        accelerator: str = "auto",
        device: int | str = "auto",
        prefix: str | None = None,
    ) -> Self:
        """Read a model that :meth:`save` wrote.

        Parameters
        ----------
        dir_path
            Folder.
        adata
            Data organised like those the model was trained on; they need not be set up. None loads those saved with the
            model, if there are any; False loads the model without data.
        accelerator, device
            Where to put the model, as in scvi-tools.
        prefix
            What the names of the files begin with.

        Returns
        -------
        The model.

        Raises
        ------
        countsdiff.model_files.ModelFileError
            If the files are of another class or a newer version, do not fit each other, were cut short or changed, or
            are a pickle of earlier times: a :class:`ValueError` that names the file, and what to do.
        ValueError, KeyError
            If the data do not fit the model.

        Examples
        --------
        >>> model.save("saved_model")
        >>> again = CountsDiffImputer.load("saved_model", adata=False)
        >>> bool((again.impute(adata, inplace=False) == model.impute(adata, inplace=False)).all())
        True
        """
        _, _, torch_device = parse_device_args(
            accelerator=accelerator, devices=device, return_device="torch", validate_single_device=True
        )
        folder, prefix = Path(dir_path), prefix or ""
        record = cls._read_record(folder, prefix)
        path = folder / (prefix + _WEIGHTS)
        registry, settings, state = record["registry"], record["settings"], with_later_weights(read_weights(path))
        # shapes before memory: numbers in a file may ask for any amount of it, those of the weights are there
        with believing(folder / (prefix + _RECORD)), torch.device("meta"):
            if (settings["depth"] or 0) > len(state):
                raise ValueError(f"it describes a network of depth {settings['depth']}, more than there are weights")
            outline = cls(None, registry, **settings)
        check_weights(state, outline.module, path)
        data = _saved_data(folder, prefix, registry["setup_method_name"]) if adata is None else adata
        if data is not False:
            _check_data(data, registry)
            outline._check_known_categories(data)
            getattr(cls, registry["setup_method_name"])(data, source_registry=registry, **registry["setup_args"])
        model = cls(None if data is False else data, registry, **settings)
        for name in _KEPT:
            setattr(model, f"{name}_", record[name])  # type: ignore[literal-required]
        model.module.load_state_dict(state)
        model.to_device(torch_device)
        model.module.eval()
        return model

    @classmethod
    def load_registry(cls, dir_path: str | Path, prefix: str | None = None) -> Registry:
        """Read what scvi-tools registered of the training data of a saved model.

        Parameters
        ----------
        dir_path, prefix
            As for :meth:`load`.
        """
        return cls._read_record(Path(dir_path), prefix or "")["registry"]

    @classmethod
    def view_setup_args(cls, dir_path: str | Path, prefix: str | None = None) -> None:
        """Print the arguments of the set-up of a saved model.

        Parameters
        ----------
        dir_path, prefix
            As for :meth:`load`.
        """
        AnnDataManager.view_setup_method_args(cls.load_registry(dir_path, prefix))

    @classmethod
    def convert_legacy_save(cls, *args: Any, **kwargs: Any) -> None:
        """Not here: scvi-tools converts models of its first versions, which are pickles, and there are none of ours.

        Parameters
        ----------
        *args, **kwargs
            Not looked at.

        Raises
        ------
        NotImplementedError
            Always.
        """
        raise NotImplementedError("There are no models of an earlier scvi-tools to convert.")

    @classmethod
    def _read_record(cls, folder: Path, prefix: str) -> Record:
        """What a model is but for its weights, checked, and the weights unchanged since."""
        path, weights = folder / (prefix + _RECORD), folder / (prefix + _WEIGHTS)
        if not path.is_file() and (folder / f"{prefix}model.pt").is_file():
            raise ModelFileError(
                f"{folder / f'{prefix}model.pt'}: this is a model of scvi-tools, or of countsdiff before its first "
                "release, in a pickle, which may run any program and is not read; train the model again and save it."
            )
        for file in (path, weights):
            if not file.is_file():
                raise ModelFileError(
                    f"{folder}: there is no saved model in this folder, {file.name} is missing; model.save() and "
                    "countsdiff impute --save-model write one."
                )
        content = read_document(path, FORMAT)
        with believing(path):
            if (name := content.get("class_name")) != cls.__name__:
                raise ValueError(f"it holds a model of the class {name!r}, not {cls.__name__!r}")
            record = check_record(content, cls)
        with believing(weights):
            if digest(weights) != record["weights_sha256"]:
                raise ValueError(f"it is not the one that {path.name} was written with, or was changed since")
        return record


def _saved_data(folder: Path, prefix: str, setup_method: str) -> AnnData | MuData | bool:
    """Data saved with a model, False if there are none."""
    name, read = (_MUDATA, mudata.read_h5mu) if setup_method == "setup_mudata" else (_ANNDATA, anndata.read_h5ad)
    path = folder / (prefix + name)
    if not path.is_file():
        warnings.warn(f"{folder}: no data were saved with the model, which is loaded without.", stacklevel=3)
        return False
    with believing(path, "give the data, load(..., adata)"):
        return read(path)


def _check_data(data: AnnData | MuData, registry: Any) -> None:
    """Check that data are of the kind, and have the variables, that a model was trained on."""
    joint = registry["setup_method_name"] == "setup_mudata"
    if not isinstance(data, AnnData | MuData):
        raise TypeError(f"adata is data, False or None; got {data!r}.")
    if isinstance(data, MuData) != joint:
        raise ValueError(f"The model was trained on {'MuData' if joint else 'AnnData'}; got {type(data).__name__}.")
    names = registry["field_registries"][REGISTRY_KEYS.X_KEY]["state_registry"]["column_names"]
    if not joint and align_genes(data.var_names, np.asarray(names)) is not None:
        raise ValueError(
            "The genes are those of the model in another order; load(..., adata=False) takes them in any, with "
            "impute(adata), or give adata[:, model.get_var_names()].copy()."
        )
