import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from countsdiff.model._loading import Steps


class Cells(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, rows):
        return torch.tensor(rows)


def orders(loader):
    """Of two epochs, with something else drawn in between."""
    torch.manual_seed(3)
    epochs = []
    for _ in range(2):
        epochs.append([rows.tolist() for rows in loader])
        torch.rand(5)
    return epochs


def test_cells_come_in_the_order_of_torchs_own_loader():
    shuffled = BatchSampler(RandomSampler(Cells()), batch_size=4, drop_last=False)
    expected = orders(DataLoader(Cells(), batch_size=None, sampler=shuffled))
    assert (
        orders(DataLoader(Cells(), batch_size=None, sampler=Steps(10, 4, 1), generator=torch.Generator())) == expected
    )
    first, second = expected
    assert first != second


def test_passes_share_the_cells_of_a_step():
    torch.manual_seed(3)
    steps = Steps(10, 4, 3)
    minibatches = list(steps)
    assert [len(cells) for cells in minibatches] == [4, 1, 1, 4, 1, 1, 2, 1, 1]
    assert len(steps) == len(minibatches)
    assert sorted(sum(minibatches[::3], [])) == list(range(10))
