import hashlib
import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch
from PIL import Image

from countsdiff.image import _cifar
from countsdiff.image.data import Images, flip
from countsdiff.image.reading import has_split, read_celeba, read_cifar10, read_folder, read_images, read_npz


class Python2Pickler(pickle._Pickler):
    """Writes bytes as the strings of Python 2, as the original files have them."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_bytes(self, obj):
        self.write(pickle.BINSTRING + struct.pack("<i", len(obj)) + obj)
        self.memoize(obj)

    dispatch[bytes] = save_bytes


def dumped(value) -> bytes:
    file = io.BytesIO()
    Python2Pickler(file, protocol=2).dump(value)
    return file.getvalue()


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Two training batches, a test batch and the names of the classes in CIFAR-10's format, with known checksums."""
    rng = np.random.default_rng(0)

    def write(name, value):
        content = value if isinstance(value, bytes) else dumped(value)
        (tmp_path / name).write_bytes(content)
        monkeypatch.setitem(_cifar.MD5, name, hashlib.md5(content).hexdigest())

    for name, n in (("data_batch_1", 5), ("data_batch_2", 4), ("test_batch", 3)):
        write(name, {b"data": rng.integers(0, 256, (n, 3072)).astype(np.uint8), b"labels": [k % 3 for k in range(n)]})
    write("batches.meta", {b"label_names": [b"cat", b"dog", b"frog"]})
    return tmp_path, write


def test_cifar_reads_the_batches_that_are_there(cifar):
    folder, _ = cifar
    train, test = read_cifar10(folder), read_images(folder, "test")
    assert (len(train), len(test), train.shape) == (9, 3, (3, 32, 32))
    assert train.categories == (("cat", "dog", "frog"),)
    assert train.codes[:, 0].tolist() == [0, 1, 2, 0, 1, 0, 1, 2, 0]
    raw = np.random.default_rng(0).integers(0, 256, (5, 3072)).astype(np.uint8)
    # a row is a plane of red, then green, then blue
    np.testing.assert_array_equal(train.pixels[2, 1].ravel(), raw[2, 1024:2048])


def test_cifar_checks_checksums_before_it_reads(cifar):
    folder, _ = cifar
    (folder / "data_batch_2").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match="data_batch_2: its MD5 checksum is"):
        read_cifar10(folder)


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("function", "name"), [(os.mkdir, "mkdir"), (eval, "eval"), (np.load, "load"), (getattr, "getattr")]
)
def test_a_hostile_pickle_is_refused_before_it_does_anything(cifar, function, name, nested):
    folder, write = cifar
    mark = folder / "was here"
    arguments = {"eval": (f"__import__('os').mkdir({str(mark)!r})",), "getattr": ("a", "b")}.get(name, (str(mark),))
    hostile = Hostile(function, *arguments)
    content = dumped({b"data": [hostile]} if nested else hostile)
    with pytest.raises(pickle.UnpicklingError, match=name):
        _cifar.unpickle(io.BytesIO(content))
    write("data_batch_1", content)  # a checksum that fits does not help it
    with pytest.raises(ValueError, match=rf"data_batch_1: this is no file of CIFAR-10, it asks for .*{name}"):
        read_cifar10(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, 2], "holds a list"),
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [0]}, "not those of images"),
        ({b"data": np.zeros((1, 3072)), b"labels": [0]}, "not those of images"),
        (b"\x80", "no file of CIFAR-10"),
    ],
)
def test_cifar_says_what_is_no_batch(cifar, value, message):
    folder, write = cifar
    write("data_batch_1", value)
    with pytest.raises(ValueError, match=message):
        read_cifar10(folder)


def test_cifar_says_which_file_is_missing(cifar):
    folder, _ = cifar
    (folder / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match="test_batch: there is no such file"):
        read_cifar10(folder, "test")


def test_cifar_downloads_and_unpacks_once(cifar, tmp_path, monkeypatch):
    import tarfile

    folder, _ = cifar
    archive = tmp_path / "server.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("data_batch_1", "data_batch_2", "test_batch", "batches.meta"):
            tar.add(folder / name, f"{_cifar.FOLDER}/{name}")
    monkeypatch.setenv("COUNTSDIFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(_cifar, "URL", archive.as_uri())
    monkeypatch.setattr(_cifar, "TRAIN", ("data_batch_1", "data_batch_2"))
    for name in ("data_batch_3", "data_batch_4", "data_batch_5"):
        monkeypatch.delitem(_cifar.MD5, name)
    with pytest.raises(ValueError, match="MD5"):
        read_images("cifar10")
    assert not list((tmp_path / "cache").iterdir())
    digest = hashlib.md5(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(_cifar.MD5, "cifar-10-python.tar.gz", digest)
    assert len(read_images("cifar10")) == 9
    archive.unlink()
    assert len(read_images("cifar10")) == 9


def test_the_original_files(data_dir):
    train = read_cifar10(data_dir / "cifar-10-batches-py")
    assert len(train) % 10_000 == 0
    assert train.categories[0][:2] == ("airplane", "automobile")
    assert np.unique(train.codes).tolist() == list(range(10))
    assert 110 < train.pixels.mean() < 130
    two = train.of_classes(["horse", "cat"])
    assert (train.codes == 7).sum() == (two.codes == 0).sum()
    np.testing.assert_array_equal(two.pixels[two.codes[:, 0] == 1], train.pixels[train.codes[:, 0] == 3])


def test_unknown_classes_are_named(images):
    with pytest.raises(ValueError, match="no class 'grey'; the classes are dark, bright"):
        images.of_classes(["dark", "grey"])


def test_shrinking_takes_rounded_means_of_blocks(images):
    small = images.shrink(4)
    block = images.pixels[3, 1, 2:4, 4:6].astype(float)
    assert small.pixels[3, 1, 1, 2] == np.rint(block.mean())
    with pytest.raises(ValueError, match="8 × 8 pixels do not shrink to 3 × 3"):
        images.shrink(3)


@pytest.fixture
def celeba(tmp_path):
    """Four pictures in CelebA's layout, of one colour inside the central square and black outside."""
    (tmp_path / "img_align_celeba").mkdir()
    for k in range(4):
        picture = np.zeros((218, 178, 3), dtype=np.uint8)
        picture[20:198] = (40 * k + 20, 100, 200 - 40 * k)
        Image.fromarray(picture).save(tmp_path / "img_align_celeba" / f"{k}.jpg", quality=95)
    rows = ["4", "Bald Smiling", "0.jpg -1  1", "1.jpg  1 -1", "2.jpg -1 -1", "3.jpg  1  1"]
    (tmp_path / "list_attr_celeba.txt").write_text("\n".join(rows) + "\n")
    (tmp_path / "list_eval_partition.txt").write_text("0.jpg 0\n1.jpg 1\n2.jpg 2\n3.jpg 0\n")
    return tmp_path


def test_celeba_is_cropped_resized_and_split(celeba):
    train, test = read_images(celeba, "train", 16), read_celeba(celeba, "test")
    assert (len(train), train.shape, test.shape) == (2, (3, 16, 16), (3, 64, 64))
    assert train.categories == (("not Bald", "Bald"), ("not Smiling", "Smiling"))
    assert train.codes.tolist() == [[0, 1], [1, 1]]
    # the crop leaves nothing of the black margin
    np.testing.assert_allclose(train.pixels[1].reshape(3, -1).T, np.tile([140, 100, 80], (256, 1)), atol=4)
    np.testing.assert_allclose(test.pixels[0, 0], 100, atol=4)


def test_celeba_says_what_does_not_fit(celeba):
    (celeba / "list_eval_partition.txt").write_text("9.jpg 0\n")
    with pytest.raises(ValueError, match=r"no attributes of 9\.jpg"):
        read_celeba(celeba)
    (celeba / "list_attr_celeba.txt").write_text("4\nBald\n0.jpg 1\n")
    with pytest.raises(ValueError, match="not 4 images with 1 attributes each"):
        read_celeba(celeba)


@pytest.mark.parametrize("channels_last", [False, True])
def test_npz_has_attributes_and_a_split(tmp_path, images, channels_last):
    pixels = images.pixels.transpose(0, 2, 3, 1) if channels_last else images.pixels
    signs, partition = 2 * images.codes - 1, np.arange(40) % 3
    np.savez(tmp_path / "a.npz", images=pixels, attributes=signs, attribute_names=[b"Bright"], partition=partition)
    train, test = read_npz(tmp_path / "a.npz"), read_images(tmp_path / "a.npz", "test", 4)
    np.testing.assert_array_equal(train.pixels, images.pixels[::3])
    np.testing.assert_array_equal(train.codes, images.codes[::3])
    assert train.categories == (("not Bright", "Bright"),)
    assert (len(test), test.shape) == (26, (3, 4, 4))


def test_npz_is_refused_if_it_is_none_or_a_pickle(tmp_path):
    (tmp_path / "a.npz").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match=r"a\.npz: this is no \.npz file"):
        read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"b\.npz: this is no \.npz file of arrays"):
        read_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", pictures=np.zeros(3))
    with pytest.raises(ValueError, match="no array 'images' among pictures"):
        read_npz(tmp_path / "c.npz")
    np.savez(tmp_path / "d.npz", images=np.zeros((2, 3, 8, 8)))
    with pytest.raises(ValueError, match="uint8 of shape .*got float64"):
        read_npz(tmp_path / "d.npz")


def test_npz_says_what_does_not_fit(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros(3))
    with pytest.raises(ValueError, match="this is no .npz file"):
        read_npz(tmp_path / "a.npy")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 3, 8, 8), np.uint8), attributes=np.ones(2))
    with pytest.raises(ValueError, match=r"attributes have the shape \(number, attributes\)"):
        read_npz(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", images=np.zeros((2, 4, 8, 8), np.uint8))
    with pytest.raises(ValueError, match="one channel, or three of colour; got 4"):
        read_npz(tmp_path / "c.npz")


def test_pictures_that_would_be_cut_off_are_refused(tmp_path, images):
    Image.fromarray(np.full((8, 8), 50_000, np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png: its pixels have more than 8 bits"):
        read_folder(tmp_path)
    (tmp_path / "deep.png").unlink()
    Image.fromarray(images.pixels[0].transpose(1, 2, 0)).save(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"cut\.png: this picture cannot be read"):
        read_folder(tmp_path)


def test_folders_of_pictures(tmp_path, images):
    for k, name in enumerate(("b/1.png", "a/1.png", "a/2.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(images.pixels[k].transpose(1, 2, 0)).save(tmp_path / name)
    found = read_images(tmp_path)
    np.testing.assert_array_equal(found.pixels, images.pixels[[1, 2, 0]])
    assert (found.codes[:, 0].tolist(), found.categories) == ([0, 0, 1], (("a", "b"),))
    assert read_folder(tmp_path / "a").categories == ()
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "b" / "2.png")
    with pytest.raises(ValueError, match=r"2\.png: this picture has another size"):
        read_folder(tmp_path)
    assert read_folder(tmp_path, 4).shape == (3, 4, 4)
    (tmp_path / "b" / "3.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"3\.png: this file is no picture"):
        read_folder(tmp_path, 4)


def test_folders_for_training_and_for_testing_are_no_classes(tmp_path, images):
    for k, name in enumerate(("train/b/1.png", "train/a/1.png", "test/a/1.png")):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(images.pixels[k].transpose(1, 2, 0)).save(tmp_path / name)
    train, test = read_images(tmp_path), read_images(tmp_path, "test")
    np.testing.assert_array_equal(train.pixels, images.pixels[[1, 0]])
    np.testing.assert_array_equal(test.pixels, images.pixels[[2]])
    assert (train.categories, test.categories) == ((("a", "b"),), (("a",),))
    assert (has_split(tmp_path), has_split(tmp_path / "train")) == (True, False)


def test_files_say_whether_they_have_images_for_testing(tmp_path, images, celeba):
    np.savez(tmp_path / "a.npz", images=images.pixels)
    np.savez(tmp_path / "b.npz", images=images.pixels, partition=np.arange(40) % 2)
    paths = (tmp_path / "a.npz", tmp_path / "b.npz", celeba, "cifar10")
    assert [has_split(path) for path in paths] == [False, True, True, True]


def test_pictures_are_turned_as_they_say_and_transparent_ones_are_white(tmp_path):
    upright = np.zeros((4, 8, 3), np.uint8)
    upright[:, :4] = 250
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(upright).save(tmp_path / "turned.png", exif=exif)
    (found,) = read_folder(tmp_path).pixels
    np.testing.assert_array_equal(found, np.rot90(upright, -1).transpose(2, 0, 1))
    (tmp_path / "turned.png").unlink()
    colour = np.full((8, 8, 4), 200, np.uint8)
    colour[..., 3] = 0
    Image.fromarray(colour).save(tmp_path / "clear.png")
    assert (read_folder(tmp_path).pixels == 255).all()


def test_npz_has_as_many_of_everything(tmp_path, images):
    for name in ("partition", "labels", "attributes"):
        np.savez(tmp_path / "a.npz", images=images.pixels, **{name: np.zeros((39, 1))})
        with pytest.raises(ValueError, match=f"{name} has the shape"):
            read_npz(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=np.zeros((2, 3, 8, 16), np.uint8))
    with pytest.raises(ValueError, match="8 × 16 pixels do not shrink"):
        read_images(tmp_path / "b.npz", size=8)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read_images(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="there are no pictures"):
        read_images(tmp_path)


def test_codes_belong_to_images(images):
    with pytest.raises(ValueError, match="as many codes"):
        Images(images.pixels, images.codes[:5], images.categories)
    for wrong in (-2, len(images.categories[0])):
        codes = images.codes.copy()
        codes[3, 0] = wrong
        with pytest.raises(ValueError, match=f"image 3 has {wrong} of covariate 0"):
            Images(images.pixels, codes, images.categories)


def test_classes_go_by_their_names():
    def labelled(names, codes):
        return Images(np.zeros((2, 3, 8, 8), np.uint8), np.array(codes), (names,))

    known = (("a", "b"),)
    assert labelled(("b",), [[0], [0]]).codes_as(known).tolist() == [[1], [1]]
    assert labelled(("b", "a"), [[0], [1]]).codes_as(known).tolist() == [[1], [0]]
    assert labelled(("b", "a"), [[0], [1]]).codes_as(()).shape == (2, 0)
    assert labelled(("b", "a"), [[-1], [1]]).codes_as(known).tolist() == [[-1], [0]]
    assert labelled(("b", "a"), [[-1], [1]]).of_classes(["a"]).codes.tolist() == [[0]]
    nameless = Images(np.zeros((2, 3, 8, 8), np.uint8), np.empty((2, 0), np.int64))
    assert nameless.codes_as(known).tolist() == [[-1], [-1]]
    with pytest.raises(ValueError, match="does not know 'c'; it knows a, b"):
        labelled(("c", "b"), [[0], [1]]).codes_as(known)


def test_flips_turn_about_half_of_the_images_over(generator):
    pixels = torch.arange(600 * 4, dtype=torch.float32).view(600, 1, 2, 2)
    flipped = flip(pixels, generator)
    turned = (flipped == pixels.flip(3)).all(3).all(2).all(1)
    same = (flipped == pixels).all(3).all(2).all(1)
    assert bool((turned ^ same).all())
    assert 240 < int(turned.sum()) < 360
    again = flip(pixels, torch.Generator().manual_seed(0))
    assert torch.equal(flipped, again)
