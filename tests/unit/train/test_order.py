"""Positions in the data are plain arithmetic, for any number of ranks."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from workers.train.order import Draw, Order

SIZES = st.integers(1, 40)
FLAGS = st.fixed_dictionaries({"shuffle": st.booleans(), "drop_last": st.booleans()})


def drawn(order: Order, count: int, epoch: int = 0, samples: int = 0) -> list[Draw]:
    """Return so many batches."""
    return [draw._replace(places=None) for draw in islice(order.draws(epoch, samples), count)]


@given(SIZES, st.integers(1, 9), st.integers(1, 5), FLAGS)
def test_the_ranks_share_an_epoch(
    length: int, batch: int, ranks: int, flags: dict[str, bool]
) -> None:
    """Each sample once, but those that fill up the last batch; every rank gets as many."""
    orders = [Order(length, batch, 3, rank, ranks, **flags) for rank in range(ranks)]
    count = orders[0].batches()
    shares = [[i for draw in drawn(order, count) for i in draw.indices] for order in orders]
    assert len({len(share) for share in shares}) == 1
    seen = sorted(index for share in shares for index in share)
    if flags["drop_last"]:
        assert len(set(seen)) == len(seen) == length // (batch * ranks) * batch * ranks
    else:
        assert set(seen) == set(range(length))
        assert len(seen) == -(-length // ranks) * ranks


@given(SIZES, st.integers(1, 9), st.integers(0, 30), FLAGS)
def test_a_run_goes_on_where_it_was(
    length: int, batch: int, cut: int, flags: dict[str, bool]
) -> None:
    """From any batch's position come the batches that would have come."""
    order = Order(length, batch, 8, **flags)
    if not order.batches():
        assert length < batch
        return
    whole = drawn(order, cut + 9)
    epoch, samples = (whole[cut - 1].epoch, whole[cut - 1].samples) if cut else (0, 0)
    assert drawn(order, 9, epoch, samples) == whole[cut:]


def test_a_position_of_two_ranks_is_one_for_three() -> None:
    """What is left of the epoch is shared among the new ranks."""
    before = [Order(23, 4, 1, rank, 2) for rank in range(2)]
    first = [i for order in before for i in drawn(order, 1)[0].indices]
    after = [Order(23, 4, 1, rank, 3) for rank in range(3)]
    left = [
        i for order in after for draw in drawn(order, order.batches(8), 0, 8) for i in draw.indices
    ]
    assert sorted({*first, *left}) == list(range(23))
    assert len(first) + len(left) == 23


def test_the_last_step_of_an_epoch_has_fewer_batches() -> None:
    """Accumulation does not reach into the next epoch."""
    order = Order(10, 2, 0, accumulate=2)
    assert (order.batches(), order.steps(), order.steps(8), order.steps(10)) == (5, 3, 1, 0)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    """The order depends on both, and on nothing else."""
    orders = [
        [draw.indices for draw in drawn(Order(9, 9, seed), 1, epoch)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))
    ]
    assert orders[0] == orders[3]
    assert len({str(order) for order in orders}) == 3
