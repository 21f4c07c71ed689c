"""Images: every kind of file, resizing against Hugging Face's, duplicates, and what is refused."""
import io
import pathlib
import re

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sections
from transformers.image_transforms import center_crop, get_resize_output_image_size, resize

from w2s_jax.errors import ConfigError, DataError
from w2s_jax.report import markup
from w2s_jax.tasks import TASKS, array_files, images

CIFAR = pathlib.Path(__file__).parents[3] / 'shared' / 'assets' / 'vision'


def pixels(n=20, height=6, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), np.uint8)


def encoded(image, kind='PNG', **options) -> bytes:
    out = io.BytesIO()
    (image if isinstance(image, PIL.Image.Image) else PIL.Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def write(path, rows, label=None, column='image', struct=False) -> str:
    """A parquet file of images: arrays, or bytes as they are."""
    data = [x if isinstance(x, bytes) else encoded(x) for x in rows]
    column_of = [{'bytes': x, 'path': None} for x in data] if struct else data
    pq.write_table(pa.table({column: column_of, 'label': list(range(3)) * 99 if label is None else label}
                            if label is not None else {column: column_of, 'label': [i % 3 for i in range(len(data))]}),
                   path)
    return str(path)


def load(path, **fields):
    return TASKS['images'].fn(sections.task('images', path=str(path), **fields), lambda line: None)


def refused(path, error=DataError, **fields) -> str:
    with pytest.raises(error) as caught:
        load(path, **fields)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 500
    return str(caught.value)


def contents(*parts):
    """Each image with its class."""
    return {(image.tobytes(), int(k)) for p in parts for image, k in zip(p.inputs['images'], p.truth, strict=True)}


@pytest.mark.parametrize('kind', ['bytes', 'struct', 'npz'])
def test_every_kind_of_file_gives_the_same_images(tmp_path, kind):
    x, wanted = pixels(), {(image.tobytes(), i % 3) for i, image in enumerate(pixels())}
    if kind == 'npz':
        np.savez(tmp_path / 'f.npz', image=x, label=np.arange(20) % 3)
        d = load(tmp_path / 'f.npz')
    else:
        d = load(write(tmp_path / 'f.parquet', x, column='img', struct=kind == 'struct'))
    assert contents(d.pool, d.test) == wanted and (len(d.pool), len(d.test), d.num_classes) == (16, 4, 3)
    assert d.pool.inputs['images'].dtype == np.uint8 and d.notes['size'] == [6, 6]


def test_a_folder_has_its_splits_and_a_test_path_counts_more(tmp_path):
    write(tmp_path / 'train.parquet', pixels(12))
    write(tmp_path / 'test.parquet', pixels(9, seed=1))
    other = write(tmp_path / 'other.parquet', pixels(5, seed=2))
    d = load(tmp_path)
    assert (len(d.pool), len(d.test)) == (12, 9)
    assert len(load(tmp_path, test_path=other).test) == 5
    assert len(load(tmp_path, train_size=7, test_size=4).pool) == 7


def test_names_of_classes_and_of_columns(tmp_path):
    words = ['cat', 'dog'] * 10
    d = load(write(tmp_path / 'f.parquet', pixels(), words, column='picture'), image='picture')
    assert d.notes['classes'] == ['cat', 'dog']
    assert contents(d.pool, d.test) == {(image.tobytes(), i % 2) for i, image in enumerate(pixels())}
    said = refused(write(tmp_path / 'g.parquet', pixels(), column='picture'), ConfigError)
    assert said.startswith('task.image: empty, and ') and "'picture'" in said
    assert "task.image: no column 'imag'" in refused(write(tmp_path / 'g.parquet', pixels()), image='imag')
    assert "task.label: no column 'k'" in refused(write(tmp_path / 'g.parquet', pixels()), label='k')


@pytest.mark.parametrize('sides', [(40, 30), (30, 40), (33, 77), (10, 25), (16, 16), (15, 16)])
def test_resized_as_hugging_face_does(sides):
    image = PIL.Image.fromarray(pixels(1, *sides)[0])
    size = get_resize_output_image_size(np.asarray(image), 16, default_to_square=False)
    wanted = center_crop(resize(np.asarray(image), size, resample=PIL.Image.Resampling.BICUBIC), (16, 16))
    np.testing.assert_array_equal(images.fitted(image, 16), wanted)
    np.testing.assert_array_equal(images.fitted(image, 0), np.asarray(image))


def test_images_of_several_sizes_need_one(tmp_path):
    rows = [*pixels(4, 8, 6), *pixels(4, 6, 9, seed=1)]
    path = write(tmp_path / 'f.parquet', rows)
    assert re.search(r'f\.parquet, row 5: an image of 6 x 9 pixels, expected 8 x 6', refused(path))
    d = load(path, size=5)
    assert d.pool.inputs['images'].shape[1:] == (5, 5, 3)
    np.savez(tmp_path / 'f.npz', image=pixels(20, 8, 6), label=np.arange(20) % 3)
    d = load(tmp_path / 'f.npz', size=5)
    assert contents(d.pool, d.test) == {(images.fitted(PIL.Image.fromarray(x), 5).tobytes(), i % 3)
                                        for i, x in enumerate(pixels(20, 8, 6))}


def test_images_of_both_sets_are_left_out_of_the_pool(tmp_path):
    x = pixels(20)
    train = write(tmp_path / 'a.parquet', [*x, x[7]])
    d = load(train, test_path=write(tmp_path / 'b.parquet', [*pixels(5, seed=1), x[3], x[7]]))
    assert d.notes['shared_with_test'] == 3 and len(d.pool) == 18 and d.notes['repeated'] == 1
    assert not {x for x, _ in contents(d.pool)} & {x for x, _ in contents(d.test)}
    assert refused(train, test_path=train).startswith(f'{train}: no image left')


def test_equal_images_stay_in_one_half(tmp_path):
    x = pixels(10)
    d = load(write(tmp_path / 'a.parquet', [*x, *x]))
    both = np.concatenate([d.pool.group, d.test.group])
    assert len(np.unique(both)) == 10 and not np.intersect1d(d.pool.group, d.test.group).size
    assert len(np.unique(images.groups(np.stack([x[0], x[0].transpose(1, 0, 2), x[1]])))) == 3


def test_pictures_are_upright_and_have_three_colours(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    turned = images.decoded(encoded(pixels(1, 4, 8)[0], exif=exif), 0, 'x')
    np.testing.assert_array_equal(turned, np.rot90(pixels(1, 4, 8)[0], -1))
    grey = PIL.Image.fromarray(pixels(1)[0]).convert('L')
    found = images.decoded(encoded(grey), 0, 'x')
    assert found.shape == (6, 6, 3) and (found == found[..., :1]).all()


BAD = [(b'nothing', 'not a readable image'), (b'', 'expected the bytes of one'),
       (encoded(pixels(1, 30, 30)[0])[:-900], 'not a readable image'),
       (encoded(pixels(1)[0], 'PCX'), 'not a readable image'), (encoded(pixels(1)[0], 'EPS'), 'not a readable image')]


@pytest.mark.parametrize(('data', 'said'), BAD, ids=['text', 'empty', 'truncated', 'unusual', 'postscript'])
@pytest.mark.parametrize('struct', [False, True])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path, data, said, struct):
    path = write(tmp_path / 'f.parquet', [*pixels(4), data, *pixels(3)], struct=struct)
    assert re.match(f'{re.escape(path)}, row 5: .*{said}', refused(path))


def test_sizes_are_known_before_an_image_is_decoded(tmp_path, monkeypatch):
    for side, said in ((9000, f'an image of 9000 x 9000 pixels, expected 1 to {images.MOST_PIXELS}'),
                       (30_000, 'not a readable image .*decompression bomb')):  # 112 kilobytes, 2.7 gigabytes of pixels
        path = write(tmp_path / 'f.parquet', [*pixels(4), encoded(PIL.Image.new('1', (side, side)))])
        assert re.search(f'row 5: {said}', refused(path))
    thin = write(tmp_path / 'g.parquet', [encoded(PIL.Image.new('1', (60_000, 1)))])
    assert 'row 1: an image of 60000 x 1 pixels' in refused(thin, size=224)
    monkeypatch.setattr(array_files, 'MOST', 1000)
    np.savez(tmp_path / 'f.npz', image=pixels(20), label=np.arange(20) % 3)
    assert 'bytes, expected at most 1000' in refused(tmp_path / 'f.npz')
    assert '20 images of 6 x 6 pixels are 2160 bytes, expected at most 1000' in refused(
        write(tmp_path / 'h.parquet', pixels()))


@pytest.mark.parametrize(('change', 'said'), [
    ({'image': np.zeros((20, 6, 6, 3))}, r'task.image is float64 of shape \[20, 6, 6, 3\], expected uint8'),
    ({'image': np.zeros((20, 6, 6), np.uint8)}, r'task.image is uint8 of shape \[20, 6, 6\]'),
    ({'image': np.zeros((20, 6, 6, 1), np.uint8)}, 'task.image is uint8'),
    ({'label': np.arange(19)}, r'task.label is of shape \[19\], expected as many as the 20'),
    ({'label': np.zeros(20, int)}, "task.label has only the class '0'"),
    ({'label': np.full(20, -1)}, 'task.label: row 1 is -1, expected a class')])
def test_arrays_that_are_wrong(tmp_path, change, said):
    np.savez(tmp_path / 'f.npz', **({'image': pixels(), 'label': np.arange(20) % 3} | change))
    assert re.search(said, refused(tmp_path / 'f.npz'))


def test_labels_and_paths_that_are_wrong(tmp_path):
    for label, said in (([None] + [1] * 19, 'row 1: task.label is .None.'), ([.5] * 20, 'row 1: task.label is .0.5.'),
                        ([2**40] * 20, 'row 1: task.label is .1099511627776.')):
        assert re.search(said, refused(write(tmp_path / 'f.parquet', pixels(), label)))
    assert refused('', ConfigError).startswith('task.path: empty')
    assert 'no such file' in refused(tmp_path / 'none.parquet') and 'no such file' in refused(tmp_path / 'none.npz')
    (tmp_path / 'bad.parquet').write_bytes(b'PAR1 and nothing')
    assert 'not a readable parquet file' in refused(tmp_path / 'bad.parquet')
    small = write(tmp_path / 'small.parquet', pixels(9, 5, 5))
    assert 'images of 5 x 5 pixels, expected the 6 x 6 of' in refused(
        write(tmp_path / 'f.parquet', pixels()), test_path=small)


def test_a_report_shows_the_image(tmp_path):
    d = load(write(tmp_path / 'f.parquet', pixels(), ['<b>', 'dog'] * 10))
    shown = d.render({'images': pixels(1)[0]}, {'student & co': 0})
    assert '&lt;b&gt;' in shown and 'student &amp; co' in shown
    assert 'data:image/png;base64,' in str(markup.cleaned(shown))


@pytest.mark.skipif(not CIFAR.exists(), reason=f'{CIFAR} is absent')
def test_cifar():
    d = load(next(p for p in CIFAR.iterdir() if (p / 'train.parquet').exists()), train_size=500)
    assert d.pool.inputs['images'].shape == (500, 32, 32, 3) and len(d.test) == 1000 and d.num_classes == 10
