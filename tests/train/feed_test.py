"""What a device needs next is made while it works: in order, no further ahead than said, and nothing is left behind."""
import threading
import time

import chex
import jax
import numpy as np
import pytest
from train_test import BAG, MODEL, STATIC, runs, texts

from w2s_jax.runtime import sharding
from w2s_jax.train import prefetch
from w2s_jax.train import trainer as train
from w2s_jax.train.runs import Runs


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith('feed')]


@pytest.mark.parametrize('depth', [1, 2, 5, 100])
def test_everything_comes_once_in_order_with_what_was_made_of_it(depth):
    assert list(prefetch.ahead(lambda x: x * x, range(20), depth)) == [(x, x * x) for x in range(20)]
    assert list(prefetch.ahead(str, [], depth)) == [] and not threads()


def test_it_is_made_in_another_thread_and_no_further_ahead_than_said():
    made, most = [], 0

    def make(item):
        made.append((item, threading.current_thread().name))
        return item
    for item, _ in prefetch.ahead(make, iter(range(10)), depth=3):
        time.sleep(.01)
        most = max(most, len(made) - item - 1)
        assert len(made) <= item + 4
    assert most == 3 and all(name.startswith('feed') for _, name in made)


def test_making_and_using_overlap():
    def slowly(item):
        time.sleep(.02)
        return item
    began = time.perf_counter()
    for _ in prefetch.ahead(slowly, range(12)):
        time.sleep(.02)
    assert time.perf_counter() - began < .75 * 12 * (.02 + .02)


def test_a_slow_item_is_made_while_several_others_are_used():
    """One deep would not do: the second item takes as long as the use of two."""
    def unevenly(item):
        time.sleep(.08 if item % 4 == 3 else 0)
        return item
    began = time.perf_counter()
    for _ in prefetch.ahead(unevenly, range(12), depth=3):
        time.sleep(.03)
    assert time.perf_counter() - began < .75 * (12 * .03 + 3 * .08)


def fails_at(number):
    def make(item):
        if item == number:
            raise ValueError(f'no {item}')
        return item
    return make


def test_an_error_is_raised_where_its_turn_is():
    seen = []
    with pytest.raises(ValueError, match='no 4'):
        for item, _ in prefetch.ahead(fails_at(4), range(10)):
            seen.append(item)
    assert seen == [0, 1, 2, 3] and not threads()


@pytest.mark.parametrize('error', [ValueError, KeyboardInterrupt, None])
def test_nothing_is_left_running_when_the_loop_ends_early(error):
    made = []

    def use():
        for item, _ in prefetch.ahead(lambda x: made.append(x), range(1000)):
            if item == 3:
                if error is None:
                    break
                raise error
    try:
        use()
    except (ValueError, KeyboardInterrupt) as e:
        kept = e.__traceback__  # holds the frames, and all that has a name in them
        assert kept and not threads()
    assert not threads()
    count = len(made)
    time.sleep(.02)
    assert len(made) == count <= 6


def test_late_gives_an_item_once_the_next_is_there():
    asked = []

    def items():
        for i in range(4):
            asked.append(i)
            yield i
    assert [(i, len(asked)) for i in prefetch.late(items())] == [(0, 2), (1, 3), (2, 4), (3, 4)]
    assert list(prefetch.late([])) == []


def serial(make, items, depth=2):
    return ((item, make(item)) for item in items)


@pytest.mark.parametrize('driver', ['jit', 'pmap'])
def test_training_and_predictions_are_bit_for_bit_what_they_are_without(driver, monkeypatch):
    def found():
        trainer = train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap', 8, driver=driver)
        params, history = trainer.fit(runs())
        return params, history.arrays(), trainer.predict(params, runs().inputs, runs().rows)
    got = found()
    monkeypatch.setattr(prefetch, 'ahead', serial)
    monkeypatch.setattr(prefetch, 'late', lambda items: items)
    chex.assert_trees_all_equal(got, found())


def test_batches_are_made_while_the_loop_does_something_else():
    """At the 16th step the loop reads losses and logs; a batch that was made then would come too late."""
    made, seen = [], {}
    plain = Runs.batch

    def batch(self, step, *how):
        made.append(threading.current_thread().name)
        return plain(self, step, *how)

    def log(step, *_):
        until = time.monotonic() + 10
        while len(made) < min(step + 2, STATIC.steps) and time.monotonic() < until:
            time.sleep(.001)
        seen[step] = len(made)
    r = type('Noted', (Runs,), {'batch': batch})(**vars(runs()))
    train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap').fit(r, log=log)
    assert seen == {16: 18, 20: 20} and all(name.startswith('feed') for name in made) and not threads()


def test_an_error_in_a_batch_ends_the_training_with_it():
    def batch(self, step, *how):
        if step == 5:
            raise OSError('no such file')
        return Runs.batch(self, step, *how)
    r = type('Broken', (Runs,), {'batch': batch})(**vars(runs()))
    with pytest.raises(OSError, match='no such file'):
        train.Trainer(MODEL, STATIC, sharding.make_mesh(), 'vmap').fit(r)
    assert not threads()


def test_a_prediction_is_read_after_the_next_has_begun():
    trainer = train.Trainer(BAG, STATIC, sharding.make_mesh(), 'vmap', 8, shapes=(24,))
    params = jax.vmap(BAG.init)(jax.random.split(jax.random.key(0), 2))
    begun, forward = [], trainer.forward
    trainer.forward = lambda *args: begun.append(1) or forward(*args)
    read = []

    def reduce(probabilities):
        read.append(len(begun))
        return {'best': probabilities.argmax(-1), 'all': probabilities}
    found = trainer.predict(params, texts(), reduce=reduce)
    assert read == [2, 3, 4, 5, 5]
    np.testing.assert_array_equal(found['all'].argmax(-1), found['best'])
    assert found['best'].shape == (2, 40)
