import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from countsdiff.files import digest
from countsdiff.model_files import ModelFileError, check_weights, read_weights, write_weights


class Network(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.linear = nn.Linear(2, width)
        self.register_buffer("tail", torch.tensor(torch.inf))
        self.register_buffer("steps", torch.tensor(7))
        self.register_buffer("nothing", torch.empty(0))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.safetensors"


def test_weights_come_back_to_the_last_bit(path):
    network = Network()
    write_weights(network, path)
    state = read_weights(path)
    check_weights(state, network, path)
    assert set(state) == set(network.state_dict())
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in state.items())


def test_everyone_may_read_what_they_may_read_otherwise(path):
    write_weights(Network(), path)
    other = path.with_name("other")
    other.touch()
    assert path.stat().st_mode == other.stat().st_mode


def test_shapes_are_checked_without_memory(path):
    write_weights(Network(), path)
    with torch.device("meta"):
        outline = Network(width=10**12)  # 8 TB
    with pytest.raises(
        ModelFileError, match=r"'linear.weight' is torch.float32 of shape \(3, 2\), not .*1000000000000"
    ):
        check_weights(read_weights(path), outline, path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"linear.bias": None}, "it lacks 'linear.bias'"),
        ({"more": torch.ones(1)}, "weights that the model described does not have, such as 'more'"),
        ({"linear.bias": torch.ones(4)}, r"'linear.bias' is torch.float32 of shape \(4,\), not .* \(3,\)"),
        ({"linear.bias": torch.ones(3, dtype=torch.float64)}, "'linear.bias' is torch.float64"),
        (
            {"linear.bias": torch.tensor([1.0, torch.nan, 2.0])},
            "the weights of 'linear.bias' are not all numbers; train",
        ),
        ({"linear.bias": torch.tensor([1.0, torch.inf, 2.0])}, "the weights of 'linear.bias' are not all numbers"),
        ({"tail": torch.tensor(torch.nan)}, "the weights of 'tail' are not all numbers"),
    ],
)
def test_other_weights_are_refused(path, change, says):
    state = {**Network().state_dict(), **change}
    save_file({name: value for name, value in state.items() if value is not None}, path)
    with pytest.raises(ModelFileError, match=f"weights.safetensors: .*{says}"):
        check_weights(read_weights(path), Network(), path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:4],
        lambda data: data[:-1],
        lambda data: data + b"x",
        lambda data: struct.pack("<Q", 2**62) + data[8:],
        lambda data: data.replace(b'"F32"', b'"F33"'),
        lambda data: data.replace(b'"shape":[3,2]', b'"shape":[3,9]'),
    ],
)
def test_files_that_are_not_whole_are_refused(path, damage):
    write_weights(Network(), path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        ModelFileError, match="weights.safetensors: this file cannot be used, it is no whole safetensors"
    ):
        read_weights(path)


def test_weights_that_could_not_be_read_again_are_not_written(path):
    network = Network()
    nn.init.constant_(network.linear.bias, torch.nan)
    with pytest.raises(ValueError, match="'linear.bias' are not all numbers, and the model is of no use"):
        write_weights(network, path)
    assert not path.exists()


def test_the_checksum_is_sha256(path):
    path.write_bytes(b"abc")
    assert (
        digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )  # FIPS 180-2, appendix B.1
