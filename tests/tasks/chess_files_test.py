"""Files of puzzles and games to examples, and what happens with files that are not what they should be."""
import gzip
import pathlib

import numpy as np
import pandas as pd
import pytest
from chess_test import all_rows, load, refused, same

from w2s_jax.errors import ConfigError
from w2s_jax.models import chess_moves as vocabulary

ASSETS = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'chess'
LICHESS = ASSETS / 'lichess_puzzles' / 'validation.parquet'
GAMES = ASSETS / 'pgn_games' / 'train.parquet'

# Four puzzles as Lichess publishes them (CC0); repeated below with other games and positions.
PUZZLES = pd.DataFrame([
    ('001cr', '8/3B2pp/p5k1/2p3P1/1p1p1K2/8/1P6/8 b - - 0 38', 'c5c4 d7e8', 1601, 'https://lichess.org/7FFNwibw/black#76'),
    ('001wr', 'r4rk1/p3ppbp/Pp1q1np1/3PpbB1/2B5/2N5/1PPQ1PPP/3RR1K1 w - - 4 18', 'f2f3 d6c5 g1h1 c5c4', 946,
     'https://lichess.org/KnJ2mojX#35'),
    ('001xO', 'k1r1b3/p1r1nppp/1p1qpn2/2Np4/1P1P4/PQRBPN2/5PPP/2R3K1 w - - 0 19', 'd3a6 b6c5 a6c8 c5c4', 1710,
     'https://lichess.org/fNCePFgY#37'),
    ('001XA', '1qr2rk1/pb2bppp/8/8/2p1N3/P1Bn2P1/2Q2PBP/1R3RK1 b - - 3 23', 'b8c7 b1b7 c7b7 e4f6 e7f6 g2b7', 1656,
     'https://lichess.org/KZRiN695/black#46')], columns=['PuzzleId', 'FEN', 'Moves', 'Rating', 'GameUrl'])


@pytest.fixture(scope='module')
def chess():
    pytest.importorskip('zstandard')
    return pytest.importorskip('chess')


def write(table: pd.DataFrame, path: pathlib.Path) -> pathlib.Path:
    if path.name.endswith('.zst'):
        import zstandard
        data = table.to_csv(index=False).encode()
        half = len(data) // 2  # two frames, as parallel compressors write
        path.write_bytes(zstandard.compress(data[:half]) + zstandard.compress(data[half:]))
    elif path.suffix == '.csv':
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    return path


def lichess(n: int) -> pd.DataFrame:
    if not LICHESS.exists():
        pytest.skip(f'{LICHESS} is not here')
    return pd.read_parquet(LICHESS).head(n)


def test_lichess_gives_the_position_before_the_opponents_move(chess, tmp_path):
    dataset = load(write(PUZZLES, tmp_path / 'p.csv'), test_size=1)
    rows = dataset.pool.inputs['tokens'][:, 0].tolist() + dataset.test.inputs['tokens'][:, 0].tolist()
    answers = dataset.pool.truth.tolist() + dataset.test.truth.tolist()
    # 001cr: black plays c5c4, then white, who needs no mirror, d7e8. The pawn has reached c4.
    i = answers.index(vocabulary.move_index(chess.D7, chess.E8))
    assert rows[i][chess.C4] == vocabulary.THEIRS
    assert rows[i][chess.C5] == vocabulary.EMPTY
    # 001wr: white plays f2f3, then black d6c5: seen from black, d3c4.
    i = answers.index(vocabulary.move_index(chess.D3, chess.C4))
    assert rows[i][chess.F6] == vocabulary.THEIRS
    assert rows[i][chess.D3] == vocabulary.MINE + 4


def test_every_answer_of_a_real_file_is_legal(chess, tmp_path):
    dataset = load(write(lichess(300), tmp_path / 'p.parquet'))
    assert (len(dataset.pool) + len(dataset.test), dataset.notes['skipped']) == (300, 0)
    for rows in (dataset.pool, dataset.test):
        assert (rows.extras['allowed'] == rows.truth[:, None]).any(1).all()
        assert rows.inputs['tokens'].shape == (len(rows), 1, 64)
        kings = (rows.inputs['tokens'] == vocabulary.MINE + 5).sum((1, 2))
        assert (kings == 1).all()


@pytest.mark.parametrize('sizes', [{}, {'train_size': 20, 'test_size': 10}, {'train_size': 5, 'min_rating': 1000}])
def test_csv_zst_and_parquet_give_the_same_examples(chess, tmp_path, sizes):
    table = lichess(300)
    a, b, c = (load(write(table, tmp_path / f'p.{suffix}'), **sizes) for suffix in ('csv', 'csv.zst', 'parquet'))
    assert same(a, b)
    assert same(a, c)
    assert len(a.pool) == sizes.get('train_size', len(a.pool))


def test_the_rating_filter_is_inclusive(chess, tmp_path):
    path = write(PUZZLES, tmp_path / 'p.csv')
    for low, high, count in [(1601, 0, 3), (0, 1656, 3), (946, 1601, 2), (947, 1710, 3), (1602, 1710, 2)]:
        dataset = load(path, min_rating=low, max_rating=high, test_size=1)
        assert len(dataset.pool) + len(dataset.test) == count
    assert 'none of 4 rows has a rating in [1711, any]' in refused(path, min_rating=1711)


def test_puzzles_of_one_game_share_a_group(chess, tmp_path):
    table = lichess(120).copy()
    table['GameUrl'] = [f'https://lichess.org/g{i // 6}{"/black" * (i % 2)}#{i}' for i in range(120)]
    dataset = load(write(table, tmp_path / 'p.parquet'), train_size=60, test_size=30)
    assert len(np.unique(np.concatenate([dataset.pool.group, dataset.test.group]))) <= 20
    assert not np.intersect1d(dataset.pool.group, dataset.test.group).size


def test_without_a_game_the_puzzle_is_its_own_group(chess, tmp_path):
    table = PUZZLES.assign(GameUrl=[None, None, *PUZZLES['GameUrl'][2:]])
    for part in (table, PUZZLES.drop(columns='GameUrl')):
        dataset = load(write(part, tmp_path / 'p.csv'), test_size=1)
        assert len(all_rows(dataset)) == len({g for _, _, g, _ in all_rows(dataset)}) == 4


def test_a_test_file_shares_no_game_and_no_position_with_the_pool(chess, tmp_path):
    table = lichess(60).copy()
    test = table.iloc[:10].assign(GameUrl='https://lichess.org/other')  # same positions
    same_game = table.iloc[10:12].assign(FEN=table['FEN'].iloc[50], Moves=table['Moves'].iloc[50])
    write(pd.concat([test, same_game]), tmp_path / 't.csv')
    dataset = load(write(table, tmp_path / 'p.csv'), test_path=str(tmp_path / 't.csv'))
    # Ten positions, the game of row 11 (row 12 repeats its position in the test file), the position of row 51.
    assert (len(dataset.test), len(dataset.pool), dataset.notes['shared_with_test']) == (11, 48, 12)
    assert dataset.notes['duplicates'] == 1
    assert 'no row left' in refused(tmp_path / 'p.csv', test_path=str(tmp_path / 'p.csv'))


def test_a_position_is_taken_once(chess, tmp_path):
    dataset = load(write(pd.concat([PUZZLES, PUZZLES]), tmp_path / 'p.csv'), test_size=1)
    assert len(dataset.pool) + len(dataset.test) == 4
    assert dataset.notes['duplicates'] == 4


def test_only_as_many_rows_as_needed_are_replayed(chess, tmp_path, monkeypatch):
    from w2s_jax.tasks.chess import board as chess_board
    calls, real = [], chess_board.board_tokens
    monkeypatch.setattr(chess_board, 'board_tokens', lambda board: calls.append(1) or real(board))
    load(write(lichess(4000), tmp_path / 'p.parquet'), train_size=40, test_size=10)
    assert 50 <= len(calls) <= 200


# Rows that cannot be used.

@pytest.mark.parametrize('column, value, reason', [
    ('Moves', 'c5c4 e2e5', "illegal move 'e2e5'"), ('Moves', 'c5c3 d7e8', "illegal move 'c5c3'"),
    ('Moves', 'c5c4 0000', "illegal move '0000'"), ('Moves', 'c5c4 \u2654', "illegal move '\u2654'"),
    ('Moves', 'c5c4', 'expected two moves'), ('Moves', None, 'missing Moves'), ('FEN', None, 'missing FEN'),
    ('FEN', 'nonsense', "illegal FEN 'nonsense'"), ('FEN', 'line\nbreak ' * 50, 'illegal FEN'),
    ('FEN', '8/3B2pp/p5k1/2p3P1/1p1p4/8/1P6/8 b - - 0 38',
             "illegal FEN '8/3B2pp/p5k1/2p3P1/1p1p4/8/1P6/8 b - - 0 38': no white king")])
@pytest.mark.parametrize('suffix', ['csv', 'parquet'])
def test_an_unusable_row_is_named_counted_and_tolerated_up_to_a_limit(chess, tmp_path, column, value, reason, suffix):
    table = pd.concat([PUZZLES.iloc[1:3], PUZZLES]).reset_index(drop=True)
    table.loc[2, column] = value
    path = write(table, tmp_path / f'p.{suffix}')
    message = refused(path)
    assert message.startswith(f'{path}: row 3: {reason}')
    assert message.endswith('(1 of 6 rows unusable, task.max_bad_rows allows 1 %)')
    assert 'row 3' in refused(path, max_bad_rows=0.16)
    notes = load(path, max_bad_rows=0.17, test_size=1).notes
    assert (notes['rows'], notes['skipped'], notes['duplicates']) == (3, 1, 2)
    assert notes['first_skipped'].startswith(f'row 3: {reason}')


def test_a_row_without_rating_is_unusable_only_where_it_matters(chess, tmp_path):
    path = write(PUZZLES.assign(Rating=['1601', 'abc', None, '1656']), tmp_path / 'p.csv')
    assert len(all_rows(load(path, test_size=1))) == 4
    assert 'row 2: missing Rating (2 of 4 rows unusable' in refused(path, min_rating=1000)


def test_a_row_without_game_and_id_is_unusable(chess, tmp_path):
    path = write(PUZZLES.assign(GameUrl=None, PuzzleId=['a', None, 'c', 'd']), tmp_path / 'p.csv')
    assert 'row 2: missing PuzzleId' in refused(path)


# Files that cannot be used.

def zstd(data: bytes) -> bytes:
    import zstandard
    return zstandard.compress(data)


def as_parquet(tmp_path, table=PUZZLES) -> bytes:
    return write(table, tmp_path / 'whole.parquet').read_bytes()


CSV = PUZZLES.to_csv(index=False).encode()
LONG_CSV = CSV + b''.join(b'%d,x,y,1,z\n' % i for i in range(200_000))


HEADER, FIRST_ROW = CSV.split(b'\n')[:2]
WITHOUT_FEN = PUZZLES.drop(columns='FEN')
MOVES_AS_LISTS = PUZZLES.assign(Moves=[['c5c4', 'd7e8']] * 4)


@pytest.mark.parametrize('name, content, expected', [
    ('p.csv', None, 'no such file'), ('p.pgn', None, 'no such file'), ('p.txt', b'x', 'unknown kind of file'),
    ('p.csv', b'', 'empty file'), ('p.pgn', b'', 'empty file'), ('p.parquet', b'', 'empty file'),
    ('p.csv.zst', b'', 'empty file'), ('p.csv', b'\n\n', 'cannot be read'),
    ('p.csv', HEADER, 'no rows'), ('p.csv', HEADER + b'\n', 'no rows'),
    ('p.csv', HEADER + b'\n' + FIRST_ROW, '1 usable example'),
    ('p.csv', CSV.replace(b'FEN', b'Fen').replace(b'Moves', b'M'),
     'no column FEN, Moves (nor moves_uci), found PuzzleId, Fen, M, Rating'),
    ('p.csv', FIRST_ROW, 'no column PuzzleId, FEN, Moves'),
    ('p.csv', b'\xff\xfe\x00' * 50, 'cannot be read'), ('p.csv', CSV + b'caf\xe9,a,b,1,c\n', "can't decode byte"),
    ('p.csv', CSV + b'a,"b\n', 'cannot be read'), ('p.csv', gzip.compress(CSV), 'cannot be read'),
    ('p.csv.zst', b'garbage' * 20, 'cannot be read'), ('p.csv.zst', CSV, 'cannot be read'),
    ('p.csv.zst', lambda _: zstd(CSV)[:-20], 'truncated'), ('p.csv.zst', lambda _: zstd(LONG_CSV)[:-5000], 'truncated'),
    ('p.csv.zst', lambda _: zstd(CSV) + zstd(CSV)[:60], 'truncated'),
    ('p.csv.zst', lambda _: zstd(b''), 'cannot be read'),
    ('p.parquet', b'PAR1garbage', 'cannot be read'), ('p.parquet', lambda t: as_parquet(t)[:-50], 'cannot be read'),
    ('p.parquet', lambda t: as_parquet(t)[:40] + b'\x00' * 99 + as_parquet(t)[139:], 'cannot be read'),
    ('p.parquet', lambda t: as_parquet(t, WITHOUT_FEN), 'no column FEN'),
    ('p.parquet', lambda t: as_parquet(t, PUZZLES.head(0)), 'no rows'),
    ('p.parquet', lambda t: as_parquet(t, MOVES_AS_LISTS), 'column Moves: expected text, found list'),
    ('p.pgn', b'\x00\x01' * 200, 'unusable'), ('p.pgn', b'hello\n', 'unusable'), ('p.pgn', b'\n \n', 'no rows'),
    ('p.pgn.zst', b'garbage' * 20, 'cannot be read')])
def test_a_file_that_cannot_be_used_is_refused_in_one_line(chess, tmp_path, name, content, expected):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content(tmp_path) if callable(content) else content)
    message = refused(path)
    assert message.startswith(f'{path}: ')
    assert expected in message


def test_a_folder_is_no_file(chess, tmp_path):
    (tmp_path / 'p.csv').mkdir()
    assert 'no such file' in refused(tmp_path / 'p.csv')


def test_ratings_need_their_column(chess, tmp_path):
    path = write(PUZZLES.drop(columns='Rating'), tmp_path / 'p.csv')
    assert 'no column Rating' in refused(path, min_rating=1)
    path = write(PUZZLES.assign(Rating=[['a']] * 4), tmp_path / 'p.parquet')
    assert 'column Rating: expected numbers, found list' in refused(path, min_rating=1)


def test_a_byte_order_mark_and_other_columns_do_no_harm(chess, tmp_path):
    wide = PUZZLES.assign(Themes='a b', Extra=1).to_csv(index=False)
    (tmp_path / 'p.csv').write_bytes(b'\xef\xbb\xbf' + wide.encode())
    assert same(load(tmp_path / 'p.csv', test_size=1), load(write(PUZZLES, tmp_path / 'q.csv'), test_size=1))
    (tmp_path / 'g.pgn').write_bytes(b'\xef\xbb\xbf' + (ITALIAN_PGN + FRENCH_PGN).encode())
    assert load(tmp_path / 'g.pgn').notes['skipped'] == 0


# With python-chess: games.

ITALIAN = 'e2e4 e7e5 g1f3 b8c6 f1c4 f8c5 e1g1 g8f6 d2d3 e8g8'
FRENCH = 'e2e4 e7e6 d2d4 d7d5 b1c3 f8b4 e4e5 c7c5 a2a3 b4c3'
ITALIAN_PGN = '''[Event "First"]
[White "M\u00fcller"]

1. e4 {best by test
[%clk 0:10:00] [Event no tag} e5 2. Nf3 (2. f4 exf4) Nc6 3. Bc4 $1 Bc5 4. O-O Nf6 5. d3 O-O 1-0

'''
FRENCH_PGN = '''[Event "Second"]

1. e4 e6 2. d4 d5 3. Nc3 Bb4 4. e5 c5 5. a3 Bxc3+ *
'''


def game_files(folder: pathlib.Path) -> list[pathlib.Path]:
    text = (ITALIAN_PGN + FRENCH_PGN).encode('latin-1')
    (folder / 'g.pgn').write_bytes(text)
    (folder / 'g.pgn.zst').write_bytes(zstd(text))
    table = pd.DataFrame({'white': ['a', 'b'], 'moves_uci': [ITALIAN, FRENCH]})
    return [folder / 'g.pgn', folder / 'g.pgn.zst', write(table, folder / 'g.parquet'), write(table, folder / 'g.csv')]


@pytest.mark.parametrize('positions', [1, 4, 100])
def test_games_in_every_format_give_the_same_examples(chess, tmp_path, positions):
    first, *others = (load(p, positions_per_game=positions) for p in game_files(tmp_path))
    assert all(same(first, other) for other in others)
    rows = all_rows(first)
    assert len({g for _, _, g, _ in rows}) == 2
    # All ten positions of both, of which the first two are the same.
    assert len(rows) == (18 if positions == 100 else 2 * positions - first.notes['duplicates'])


def test_the_answer_is_the_move_that_was_played(chess, tmp_path):
    from w2s_jax.tasks.chess import board as chess_board
    expected = set()
    for game in (ITALIAN, FRENCH):
        board = chess.Board()
        for uci in game.split():
            expected.add((chess_board.board_tokens(board).tobytes(),
                          chess_board.move_class(board, chess.Move.from_uci(uci))))
            board.push_uci(uci)
    rows = all_rows(load(game_files(tmp_path)[0]))
    assert {(tokens, move) for tokens, move, _, _ in rows} <= expected


def test_positions_follow_the_seed(chess, tmp_path):
    path = game_files(tmp_path)[0]
    assert len({tuple(all_rows(load(path, seed=s, positions_per_game=1))) for s in (0, 0, 1, 2, 3)}) > 2
    assert same(load(path, seed=3), load(path, seed=3))


def test_games_of_a_real_file(chess):
    if not GAMES.exists():
        pytest.skip(f'{GAMES} is not here')
    dataset = load(GAMES, train_size=200, test_size=50)
    assert (len(dataset.pool), len(dataset.test)) == (200, 50)
    assert not np.intersect1d(dataset.pool.group, dataset.test.group).size
    tokens = np.concatenate([dataset.pool.inputs['tokens'], dataset.test.inputs['tokens']])
    assert len(np.unique(tokens, axis=0)) == 250
    assert (dataset.pool.extras['allowed'] == dataset.pool.truth[:, None]).any(1).all()


@pytest.mark.parametrize('pgn, reason', [
    ('[Event "x"]\n\n1. e4 Ke4 *\n', 'illegal san'),
    ('[Event "x"]\n[SetUp "1"]\n[FEN "bad"]\n\n1. e4 *\n', "of fen: 'bad'"),
    ('[Event "x"]\n[SetUp "1"]\n[FEN "8/8/8/8/8/8/8/4K3 w - - 0 1"]\n\n1. Kd1 *\n', 'no black king'),
    ('[Event "x"]\n\n*\n', 'no moves'),
    ('[Event "x"]\n[Variant "Crazyhouse"]\n\n1. e4 *\n', "variant 'Crazyhouse'"),
    ('[Event "x"]\n[Variant "Nonsense"]\n\n1. e4 *\n', 'ariant')])
def test_an_unusable_game_is_named_and_skipped(chess, tmp_path, pgn, reason, caplog):
    path = tmp_path / 'g.pgn'
    path.write_text(ITALIAN_PGN + pgn + '\n' + FRENCH_PGN)
    message = refused(path)
    assert message.startswith(f'{path}: row 2: ')
    assert reason in message
    assert load(path, max_bad_rows=0.4).notes['skipped'] == 1
    assert not caplog.records


@pytest.mark.parametrize('moves, reason', [('e2e4 e7e5 e1e8', "illegal move 'e1e8'"), (None, 'missing moves_uci'),
                                           ('e2e4 junk', "illegal move 'junk'")])
def test_an_unusable_row_of_moves_is_named(chess, tmp_path, moves, reason):
    path = write(pd.DataFrame({'moves_uci': [ITALIAN, moves, FRENCH]}), tmp_path / 'g.parquet')
    assert f'row 2: {reason}' in refused(path)


def test_games_have_no_rating(chess, tmp_path):
    for path in game_files(tmp_path):
        assert 'games, which have no rating' in refused(path, ConfigError, min_rating=1000)
