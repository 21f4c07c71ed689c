"""The section `task` of a config, as its task has it."""
from w2s_jax import config as configs


def task(name: str, **fields):
    """Raises ConfigError for a field that another task has."""
    c = configs.default_config()
    c.task.name = name
    c = configs.compose(c)
    c.task.update(fields)
    return configs.compose(c).task
