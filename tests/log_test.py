"""What is logged is on the screen for people and in `metrics.jsonl` for programs."""
import io
import json

import numpy as np

from w2s_jax.log import Log


class Terminal(io.StringIO):
    def isatty(self):
        return True


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


def test_a_bar_on_a_terminal_and_lines_below_it():
    stream = Terminal()
    log = Log(stream=stream)
    log.progress('student', 50, 100, metrics([.5, .25]))
    assert 'student' in stream.getvalue() and '\r' in stream.getvalue()
    log.line('another phase')
    assert stream.getvalue().endswith('another phase\n') and log.bar is None
    log.progress('student', 100, 100, metrics([.5, .25]))
    assert log.bar is None
