"""Images and their classes: parquet files with a column of encoded images, or arrays of pixels.

Models take images of one size. An image that is another one is resized by its shorter side, bicubic, and cut out of
the middle, as the image processors of Hugging Face do for DINO and ResNet.
"""
import base64
import dataclasses
import functools
import hashlib
import html
import io
import pathlib

import numpy as np
import PIL.Image
import PIL.ImageOps

from w2s_jax.data import Dataset, Examples, Inputs
from w2s_jax.errors import ConfigError, DataError
from w2s_jax.tasks import array_files, cuts, features
from w2s_jax.tasks.text import tables
from w2s_jax.tasks.text.tables import Table

COLUMNS = ('image', 'img', 'jpg', 'png', 'images')  # where task.image is empty, the first of them that is there
FORMATS = ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'PPM', 'TIFF')  # decoded by Pillow's own code, no programs started
MOST_PIXELS = 1 << 26  # of one image, so that a small file cannot ask for all memory
TESTS = ('test', 'validation', 'val')
SHOWN = 96  # pixels of a side in a report


@dataclasses.dataclass(frozen=True)
class Part:
    """The rows of a split: pixels `[N, H, W, 3]` uint8, labels `[N]` as the file has them, and what it is called."""
    source: str
    pixels: np.ndarray
    label: np.ndarray


def load(task, log=print) -> Dataset:
    """Examples with inputs `images` `[N, H, W, 3]` uint8.

    task: path (.parquet, a folder of them with splits, or .npz), test_path ('' = the folder's test split, or a fifth of
    the rows), image and label (names of columns or arrays; classes from 0 up, or texts), size (the side in pixels; 0 =
    as they are, all alike), train_size, test_size, seed. Equal images share a group; those of the pool that are also
    in the test set are left out and counted. Raises ConfigError for fields, DataError for files that cannot be used.
    """
    if not task.path:
        raise ConfigError('task.path: empty, expected a .parquet file, a folder of them, or a .npz file')
    pool, test = _parts(task, log)
    parts = [part for part in (pool, test) if part]
    names, numbers = features.classes([p.label for p in parts], [p.source for p in parts], [None] * len(parts))
    rows = [Examples({'images': p.pixels}, truth, groups(p.pixels)) for p, truth in zip(parts, numbers, strict=True)]
    learned, held, shared = _both(rows, [p.source for p in parts], task)
    notes = {'rows': sum(map(len, rows)), 'skipped': 0, 'source': ', test: '.join(p.source for p in parts),
             'classes': names if len(names) <= 100 else [], 'shared_with_test': shared,
             'repeated': sum(len(r) - len(np.unique(r.group)) for r in rows), 'size': list(pool.pixels.shape[1:3])}
    return Dataset('images', len(names), learned, held, notes=notes, render=functools.partial(render, classes=names))


def _parts(task, log) -> tuple[Part, Part | None]:
    """(pool, test set or None)."""
    if pathlib.Path(task.path).suffix.lower() == '.npz':
        pool = _arrays(task.path, task)
        test = _arrays(task.test_path, task) if task.test_path else None
    else:
        found, held = tables.splits(task, 'train', TESTS, None)
        pool = _decoded(found, task, log)
        test = _decoded(held, task, log) if held else None
    if test and test.pixels.shape[1:] != pool.pixels.shape[1:]:
        raise DataError(f'{test.source}: images of {_by(test.pixels.shape[1:3])} pixels, expected the '
                        f'{_by(pool.pixels.shape[1:3])} of {pool.source}; or set task.size')
    return pool, test


def _arrays(path: str, task) -> Part:
    """The images of a .npz file. Raises DataError."""
    found = array_files.read(path, {'image': task.image or COLUMNS[0], 'label': task.label})
    pixels, label = found['image'], found['label']
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3 or not pixels.size:
        raise DataError(f'{path}: task.image is {pixels.dtype} of shape {list(pixels.shape)}, expected uint8 '
                        '[N, H, W, 3]')
    if not label.ndim or len(label) != len(pixels):
        raise DataError(f'{path}: task.label is of shape {list(label.shape)}, expected as many as the {len(pixels)} '
                        'images')
    if task.size and pixels.shape[1:3] != (task.size, task.size):
        _check_room(path, len(pixels), task.size)
        check_sides(pixels.shape[2], pixels.shape[1], task.size, path)
        pixels = np.stack([fitted(PIL.Image.fromarray(image), task.size) for image in pixels])
    return Part(path, pixels, label)


def _decoded(found: list[Table], task, log) -> Part:
    """The images of tables. Raises DataError that names the file and the row of one that cannot be used."""
    total, number, label, pixels = sum(len(t.rows) for t in found), 0, [], np.zeros((0, 0, 0, 3), np.uint8)
    for table in found:
        column = image_column(table, task.image)
        tables.check_columns(table, {task.label: 'task.label'})
        for i, row in enumerate(table.rows):
            image = decoded(row[column], task.size, f'{table.source}, {table.where(i)}')
            if not number:
                _check_room(table.source, total, *image.shape[:2])
                pixels = np.empty((total, *image.shape), np.uint8)
            elif image.shape != pixels.shape[1:]:
                raise DataError(f'{table.source}, {table.where(i)}: an image of {_by(image.shape)} pixels, expected '
                                f'{_by(pixels.shape[1:])} as before; or set task.size')
            pixels[number], number = image, number + 1
            label.append(_class(row[task.label], f'{table.source}, {table.where(i)}'))
    if len({type(x) for x in label}) > 1:
        raise DataError(f'{found[0].source}: task.label: both texts and numbers, expected one kind')
    log(f'{total} images of {_by(pixels.shape[1:])} pixels: {found[0].source}')
    return Part(', '.join(dict.fromkeys(t.source for t in found)), pixels, np.array(label))


def image_column(table: Table, asked: str) -> str:
    """The column of images. Raises DataError, or ConfigError where none is named or has a usual name."""
    if asked:
        tables.check_columns(table, {asked: 'task.image'})
        return asked
    for name in COLUMNS:
        if name in table.columns:
            return name
    raise ConfigError(f'task.image: empty, and {table.source} has no column {", ".join(COLUMNS)}; expected one of '
                      f'{", ".join(map(repr, table.columns))}'[:400])


def _class(value, where: str):
    if isinstance(value, int | str) and not isinstance(value, bool) and (isinstance(value, str)
                                                                         or -2**31 <= value < 2**31):
        return value
    raise DataError(f'{where}: task.label is {str(value)[:40]!r}, expected a class: a whole number or a text')


def decoded(value, size: int, where: str) -> np.ndarray:
    """`[H, W, 3]` uint8 of an encoded image: bytes, or {'bytes': ..., 'path': ...}, as `datasets` writes.

    Args:
      size: the side that it is brought to; 0: as it is.  where: file and row, for messages.
    Raises DataError.
    """
    data = value.get('bytes') if isinstance(value, dict) else value
    if not isinstance(data, bytes) or not data:
        raise DataError(f'{where}: {type(data).__name__} in place of an image, expected the bytes of one')
    try:
        image = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
        check_sides(*image.size, size, where)
        # The first frame; upright, as `datasets` decodes it.
        return fitted(PIL.ImageOps.exif_transpose(image).convert('RGB'), size)
    except DataError:
        raise
    except Exception as e:  # Pillow's decoders raise what a damaged file leads them to
        raise DataError(f'{where}: not a readable image ({tables.one_line(e)[:120]}), expected one of '
                        f'{", ".join(FORMATS)}') from None


def check_sides(width: int, height: int, size: int, where: str) -> None:
    """Raises DataError for an image that is empty or absurdly large, as it is or as `fitted` makes it."""
    factor = size / min(width, height) if size and min(width, height) else 1
    if not 0 < width * height * max(factor, 1) ** 2 <= MOST_PIXELS:
        raise DataError(f'{where}: an image of {width} x {height} pixels, expected 1 to {MOST_PIXELS} in all, also '
                        'with its shorter side at task.size')


def fitted(image: PIL.Image.Image, size: int) -> np.ndarray:
    """`[size, size, 3]` uint8: the shorter side resized to `size`, bicubic, and the middle cut out; 0: as it is."""
    width, height = image.size
    if size and (width, height) != (size, size):
        short = min(width, height)
        wide, high = (max(size, int(size * side / short)) for side in (width, height))
        left, top = (wide - size) // 2, (high - size) // 2
        image = image.resize((wide, high), PIL.Image.Resampling.BICUBIC).crop((left, top, left + size, top + size))
    return np.asarray(image, np.uint8)


def _check_room(source: str, rows: int, *sides: int) -> None:
    wanted = 3 * rows * sides[0] * sides[-1]
    if wanted > array_files.MOST:
        raise DataError(f'{source}: {rows} images of {_by((sides[0], sides[-1]))} pixels are {wanted} bytes, expected '
                        f'at most {array_files.MOST}; set task.size to less')


def _by(shape) -> str:
    return f'{shape[0]} x {shape[1]}'


def groups(pixels: np.ndarray) -> np.ndarray:
    """`[N]` int64, the same for images `[N, H, W, 3]` whose pixels are equal."""
    digests = (hashlib.sha256(np.ascontiguousarray(image).data).digest() for image in pixels)
    return np.array([int.from_bytes(d[:8], 'little', signed=True) for d in digests], np.int64)


def _both(rows: list[Examples], sources: list[str], task) -> tuple[Examples, Examples, int]:
    """(pool, test set, rows of the pool that were left out, being in the test set)."""
    pool, shared = rows[0], 0
    if len(rows) == 1:
        pool, held = cuts.cut(pool, task)
    else:
        held = rows[1]
        left = np.flatnonzero(~np.isin(pool.group, held.group))
        if not len(left):
            raise DataError(f'{sources[0]}: no image left, every one is also in {sources[1]}')
        pool, shared = pool.take(left), len(pool) - len(left)
    return (cuts.sample(pool, task.train_size, 'train_size', task.seed),
            cuts.sample(held, task.test_size, 'test_size', task.seed), shared)


def render(inputs: Inputs, answers: dict[str, int], classes: list[str]) -> str:
    """An image, and who says what it is."""
    out, image = io.BytesIO(), PIL.Image.fromarray(inputs['images'])
    image.thumbnail((SHOWN, SHOWN))
    image.save(out, 'PNG')
    picture = base64.b64encode(out.getvalue()).decode()
    said = ''.join(f'<li>{html.escape(who)}: {html.escape(classes[int(answer)])}</li>'
                   for who, answer in answers.items())
    return f'<img src="data:image/png;base64,{picture}" width="{SHOWN}" alt=""><ul class="answers">{said}</ul>'
