"""Formulas of variances, and estimators of dimensions."""
import jax
import numpy as np
import pytest

from w2s_jax.theory import dimension as d

RNG = np.random.default_rng(0)


def test_variances_of_rows_without_end_are_the_papers():
    cell = d.Cell(20, 10, (1., .5), 10**7, 10**7)
    assert d.variances(cell) == pytest.approx(d.asymptotic(cell), rel=1e-4)
    assert d.asymptotic(d.Cell(20, 10, (1., .5), 50, 40), 2.) == pytest.approx((.8, .04 * (1.25 + 18.75 / 4)))


def test_variances_of_few_rows():
    found = d.variances(d.Cell(8, 24, (1.,) * 4, 40, 100), 2.)
    assert found == pytest.approx((2 / 31 * 8, 2 / 31 * (4 + 4 * 24 / 75)))


def test_a_student_of_the_same_subspace_has_its_teachers_variance():
    weak, strong = d.variances(d.Cell(10, 10, (1.,) * 10, 40, 30))
    assert strong == pytest.approx(weak) and weak == pytest.approx(10 / 29)


def test_bases_have_the_angles_of_their_cells():
    cells = d.Cell(3, 2, (1., .6), 9, 9), d.Cell(2, 4, (.5,), 9, 9)
    found = jax.tree.map(np.asarray, d.bases(cells))
    for cell, s, w in zip(cells, found.strong, found.weak, strict=True):
        s, w = s[:, :cell.strong], w[:, :cell.weak]
        np.testing.assert_allclose(s.T @ s, np.eye(cell.strong), atol=1e-6)
        np.testing.assert_allclose(w.T @ w, np.eye(cell.weak), atol=1e-6)
        cosines = np.linalg.svd(s.T @ w)[1][:len(cell.cosines)]
        np.testing.assert_allclose(cosines, cell.cosines, atol=1e-6)
        assert np.sum((s.T @ w) ** 2) == pytest.approx(cell.shared, rel=1e-5)


def test_a_fit_sees_its_rows_and_its_subspace_alone():
    basis, x, y = np.zeros((3, 3), np.float32), RNG.normal(size=(9, 3)), RNG.normal(size=9)
    basis[:2, :2] = np.linalg.qr(RNG.normal(size=(2, 2)))[0]
    wanted = np.linalg.lstsq(x[:6, :2], y[:6], rcond=None)[0]
    np.testing.assert_allclose(d.fit(basis, x, y, 6), [*wanted, 0], rtol=1e-4, atol=1e-6)


def low_rank(*widths):
    return [RNG.normal(size=(2000, 6)) @ RNG.normal(size=(6, width)) for width in widths]


def test_dimensions_that_were_planted_are_found():
    wide, = low_rank(50)
    assert d.intrinsic_dimension(wide, .9999) == 6
    assert d.intrinsic_dimension(wide + 7, .9999) == 6  # a shift is no direction
    assert d.intrinsic_dimension(d.projected(wide, 20), .9999) == 6
    assert d.intrinsic_dimension(RNG.normal(size=(2000, 50)), .9999) == 50


def test_shared_dimensions_do_not_hang_on_the_coordinates_of_a_model():
    wide, other = low_rank(50, 30)
    turned = wide @ RNG.normal(size=(50, 40))
    assert d.correlation_dimension(wide, turned, .9999) == pytest.approx(6)
    assert d.correlation_dimension(wide, other, .9999) == pytest.approx(36 / 2000, abs=.05)
    assert d.correlation_dimension(wide, other, .9999) == pytest.approx(d.correlation_dimension(other, wide, .9999))


def test_projections_keep_lengths():
    wide = RNG.normal(size=(200, 400))
    ratio = (d.projected(wide, 300) ** 2).sum(1) / (wide ** 2).sum(1)
    assert ratio.mean() == pytest.approx(1, abs=.05)
