"""What is logged is on the screen for people and in `metrics.jsonl` for programs."""
import io
import json
import re

import numpy as np
import pytest

from w2s_jax.errors import StoreError
from w2s_jax.report import log as logs
from w2s_jax.report.log import Log


class Terminal(io.StringIO):
    def isatty(self):
        return True

    def screen(self, rows=10):
        """The lines that a terminal shows in the end: carriage returns, line feeds and cursor moves carried out."""
        lines, row, column = [''] * rows, 0, 0
        for piece in re.findall(r'\x1b\[A|[\r\n]|[^\r\n\x1b]+', self.getvalue()):
            if piece == '\r':
                column = 0
            elif piece == '\n':
                row, column = row + 1, 0
            elif piece == '\x1b[A':
                row -= 1
            else:
                lines[row] = lines[row][:column].ljust(column) + piece + lines[row][column + len(piece):]
                column += len(piece)
        return [line.rstrip() for line in lines if line.strip()]


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Recorder:
    """A sink that remembers."""

    def __init__(self):
        self.opened, self.closed, self.said = [], [], []

    def __call__(self, label):
        self.opened.append(label)
        return Place(self, label)


class Place:
    def __init__(self, recorder, label):
        self.recorder, self.label = recorder, label

    def scalars(self, step, values):
        self.recorder.said.append((self.label, step, values))

    def close(self):
        self.recorder.closed.append(self.label)


def metrics(loss):
    return {'loss': np.array(loss, np.float32), 'grad_norm': np.array([1.5, 2.5], np.float32)}


def records(path):
    def not_json(name):
        raise ValueError(f'{name} is not JSON')
    return [json.loads(line, parse_constant=not_json) for line in path.read_text().splitlines()]


def test_every_number_is_in_the_file(tmp_path):
    path, stream = tmp_path / 'metrics.jsonl', io.StringIO()
    log = Log(path, stream, period=1e9)
    log.line('student: seeds 0, 1')
    log.progress('student', 16, 100, metrics([.5, .25]))
    log.progress('student', 32, 100, metrics([np.nan, np.inf]))
    assert records(path) == [
        {'phase': 'student', 'step': 16, 'loss': [.5, .25], 'grad_norm': [1.5, 2.5]},
        {'phase': 'student', 'step': 32, 'loss': [None, None], 'grad_norm': [1.5, 2.5]}]
    Log(path, stream).progress('student', 48, 100, metrics([.125, 0]))  # another process goes on
    assert [r['step'] for r in records(path)] == [16, 32, 48]


def test_plain_lines_where_there_is_no_terminal():
    stream = io.StringIO()
    log = Log(stream=stream, period=1e9)
    for step in range(10, 101, 10):
        log.progress('student', step, 100, metrics([.5, .25]))
    assert stream.getvalue().splitlines()[-1] == '  student: step 100/100 loss 0.3750'
    assert len(stream.getvalue().splitlines()) <= 2 and '\r' not in stream.getvalue()


def test_a_plain_line_says_how_long_it_will_take():
    stream, clock = io.StringIO(), Clock()
    log = Log(stream=stream, period=10, clock=clock)
    for step, now in ((40, 100), (80, 105), (120, 120), (400, 300)):
        clock.now = now
        log.progress('student', step, 400, metrics([.5, .25]))
    assert stream.getvalue().splitlines() == [
        '  student: step 40/400 loss 0.3750',  # it has just begun, perhaps from a checkpoint
        '  student: step 120/400 loss 0.3750, 1m 10s left',  # 80 steps in 20 seconds, 280 to go
        '  student: step 400/400 loss 0.3750']


def test_each_group_has_lines_of_its_own():
    stream, clock = io.StringIO(), Clock()
    log = Log(stream=stream, period=10, clock=clock)
    for step in (1, 2, 3):
        for label in ('a', 'b'):
            log.progress(label, step, 4, metrics([.5, .5]))
        clock.now += 11
    assert [line.split(':')[0].strip() for line in stream.getvalue().splitlines()] == ['a', 'b'] * 3
    assert stream.getvalue().splitlines()[-1].endswith(', 11s left')


def test_a_group_that_begins_again_counts_anew():
    stream, clock = io.StringIO(), Clock()
    log = Log(stream=stream, period=0, clock=clock)
    for step, now in ((10, 100), (20, 200), (5, 1000), (10, 1010)):
        clock.now = now
        log.progress('a', step, 100, metrics([.5, .5]))
    lines = stream.getvalue().splitlines()
    assert lines[1].endswith(', 13m 20s left') and 'left' not in lines[2] and lines[3].endswith(', 3m 0s left')


def test_runs_that_broke_down_are_counted():
    stream = io.StringIO()
    Log(stream=stream).progress('student', 1, 2, metrics([np.nan, .5]))
    Log(stream=stream).progress('student', 1, 2, metrics([np.nan, np.inf]))
    Log(stream=stream).progress('features', 1, 2, {})
    assert stream.getvalue().splitlines() == ['  student: step 1/2 loss 0.5000 (1 of 2 runs diverged)',
                                              '  student: step 1/2 no finite loss (2 of 2 runs diverged)',
                                              '  features: step 1/2 ']


def test_a_bar_on_a_terminal_and_lines_above_it():
    stream = Terminal()
    log = Log(stream=stream)
    log.line('one phase')
    log.progress('student', 50, 100, metrics([.5, .25]))
    log.line('another phase')
    screen = stream.screen()
    assert screen[:2] == ['one phase', 'another phase'] and len(screen) == 3
    assert 'student' in screen[2] and '50/100' in screen[2] and 'loss 0.3750' in screen[2]
    log.progress('student', 100, 100, metrics([.5, .25]))
    assert stream.screen() == ['one phase', 'another phase'] and not log.running


def test_a_bar_for_each_group_that_runs():
    stream = Terminal()
    log = Log(stream=stream)
    for step in (10, 20, 30):
        for label in ('teacher xs', 'teacher s', 'ceiling l'):
            log.progress(label, step, 40, metrics([.5, .25]))
    log.line('news')  # it draws all bars again
    screen = stream.screen()
    assert screen[0] == 'news' and len(screen) == 4
    for line, label in zip(screen[1:], ('teacher xs', 'teacher s', 'ceiling l'), strict=True):
        assert label in line and '30/40' in line and '<' in line  # what is left stands behind <
    log.progress('teacher s', 40, 40, metrics([.5, .25]))
    log.line('more news')
    assert [any(label in line for line in stream.screen()) for label in ('xs', 'teacher s', 'ceiling')] == [
        True, False, True]
    log.close()
    assert stream.screen() == ['news', 'more news'] and not log.running


def test_sinks_are_fed_and_closed(tmp_path):
    sink = Recorder()
    log = Log(tmp_path / 'metrics.jsonl', io.StringIO(), sinks=[sink])
    log.progress('a', 1, 2, {'loss': np.array([.5, .25])})
    log.progress('b', 7, 9, {'loss': np.array([.5])})
    log.progress('a', 2, 2, {'loss': np.array([np.nan, .25])})
    assert sink.opened == ['a', 'b'] and sink.closed == ['a']
    assert sink.said == [('a', 1, {'loss': .375, 'loss/0': .5, 'loss/1': .25}), ('b', 7, {'loss': .5}),
                         ('a', 2, {'loss': .25, 'loss/1': .25})]
    log.close()
    assert sink.closed == ['a', 'b']


def test_a_full_disk_is_an_error_in_one_line(tmp_path):
    (tmp_path / 'metrics.jsonl').mkdir()  # it cannot be written
    log = Log(tmp_path / 'metrics.jsonl', io.StringIO())
    with pytest.raises(StoreError, match=rf'^{re.escape(str(tmp_path))}/metrics.jsonl: cannot be written \(.*\)$'):
        log.progress('a', 1, 2, metrics([.5, .5]))


def test_a_sink_that_cannot_write_is_an_error_in_one_line(tmp_path):
    class Full(Place):
        def scalars(self, step, values):
            raise OSError(28, 'No space left on device')
    log = Log(tmp_path / 'metrics.jsonl', io.StringIO(), sinks=[lambda label: Full(Recorder(), label)])
    with pytest.raises(StoreError, match='No space left on device'):
        log.progress('a', 1, 2, metrics([.5, .5]))


@pytest.mark.parametrize(('seconds', 'text'), [
    (0, '0s'), (59.4, '59s'), (59.6, '1m 0s'), (80, '1m 20s'), (3599.9, '1h 0m'), (7500, '2h 5m'), (90000, '1d 1h'),
    (3 * 86400 + 4 * 3600, '3d 4h')])
def test_durations_are_read_at_a_glance(seconds, text):
    assert logs.duration(seconds) == text
