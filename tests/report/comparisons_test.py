"""What is said of differences between students."""
from w2s_jax.report import comparisons, tables


def one(**settings) -> dict:
    return {'task': 't', 'teacher': 'a', 'student': 'b', 'method': 'naive', 'loss': 'xent', 'label': 'xent',
            'baseline': 'xent', 'settings': settings, 'mean': -.02, 'p': .001, 'holm': .002}


def test_a_student_is_called_by_what_its_labels_went_through():
    assert comparisons.who(one(**{'labels.transforms': ['probe', 'harden']})) == 'xent after probe, harden'
    assert comparisons.who(one(**{'labels.transforms': []})) == comparisons.who(one()) == 'xent'
    assert comparisons.who(one(**{'labels.transforms': ['knn']}) | {'method': 'bootstrap'}) == \
        'bootstrap · xent after knn'
    said = comparisons.statement([one(**{'labels.transforms': ['knn'], 'labels.knn.k': 9})])
    assert 'xent after knn is below xent for a → b, k 9 (by 2.0 points)' in said


def test_names_in_a_row_are_shown_as_names():
    assert [tables.shown(x) for x in (['a', 'b'], (), [1, 2], None, .5)] == ['a, b', 'none', '[1, 2]', 'default', .5]
