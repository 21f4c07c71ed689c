"""Keeps a device fed: what it computes on next is made while it computes, and what it has made is read afterwards."""
import collections
import itertools
from collections.abc import Callable, Generator, Iterable
from concurrent import futures
from typing import TypeVar

T = TypeVar('T')
R = TypeVar('R')


def ahead(make: Callable[[T], R], items: Iterable[T], depth: int = 2) -> Generator[tuple[T, R], None, None]:
    """(item, make(item)) of every item, in order, each made in a thread while those before it are used.

    At most `depth` of them wait. What `make` raises is raised where its item's turn is. Loop over it without giving it
    a name: then it ends with the loop, however that ends, and with it the thread, once the item in hand is made.
    """
    rest = iter(items)
    with futures.ThreadPoolExecutor(1, 'feed') as thread:
        waiting = collections.deque((item, thread.submit(make, item)) for item in itertools.islice(rest, depth))
        try:
            while waiting:
                item, made = waiting.popleft()
                result = made.result()
                waiting.extend((item, thread.submit(make, item)) for item in itertools.islice(rest, 1))
                yield item, result
        finally:
            for _, made in waiting:
                made.cancel()


def late(items: Iterable[T]) -> Generator[T, None, None]:
    """Every item, once the next one is there: results of dispatched programs are read while the next one runs."""
    seen: collections.deque[T] = collections.deque()
    for item in items:
        seen.append(item)
        if len(seen) > 1:
            yield seen.popleft()
    yield from seen
