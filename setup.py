"""Packaging of w2s_jax. Ranges say what should work; constraints.txt holds the versions that were tested."""

from setuptools import find_packages, setup

CORE = [
    'absl-py>=2.1,<3',
    'chex>=0.1.90,<0.2',
    'datasets>=4,<6',
    'flax>=0.12,<0.13',
    'fsspec>=2025.2',
    'huggingface_hub>=1.3,<3',
    'jax>=0.10,<0.13',
    'jinja2>=3.1,<4',
    'markupsafe>=2.1,<4',
    'matplotlib>=3.9,<4',
    'ml-collections>=1.1,<2',
    'ml-dtypes>=0.5,<1',
    'numpy>=2,<3',
    'optax>=0.2.8,<0.3',
    'orbax-checkpoint>=0.12,<0.13',
    'pandas>=2.2,<4',
    'pillow>=11',
    'pyarrow>=18',
    'safetensors>=0.5,<1',
    'scikit-learn>=1.5,<2',
    'scipy>=1.14,<2',
    'tensorboardX>=2.6,<3',
    'threadpoolctl>=3.1',
    'tqdm>=4.66,<5',
    'transformers>=5,<6',
]

# python-chess is under the GPL: the core never imports it.
CHESS = ['chess>=1.11,<2', 'zstandard>=0.23']

RESEARCHER = ['cmaes>=0.11,<1', 'optuna>=4,<6']  # its drivers tpe and cma

EXTRAS = {
    'chess': CHESS,
    'test': ['mypy>=1.15', 'pytest>=8', 'pytest-xdist>=3.6', 'ruff>=0.9', 'setuptools>=66.1', 'tokenizers>=0.22',
             *CHESS, *RESEARCHER],
    'researcher': RESEARCHER,
    'ray': ['ray>=2.50,<3', 'cloudpickle>=3'],
    'inspect': ['inspect-ai>=0.3.100,<0.4'],  # its logs are written and read without it; a test holds them against it
    'benchmark': ['tokenizers>=0.22', 'torch>=2.6'],  # its other side; the core never imports it
    'gs': ['gcsfs'],
    's3': ['s3fs'],
    'tpu': ['jax[tpu]>=0.10,<0.13'],
    'cuda12': ['jax[cuda12]>=0.10,<0.13'],
    'cuda13': ['jax[cuda13]>=0.10,<0.13'],
}

setup(
    name='w2s_jax',
    version='0.1.0',
    description='Weak-to-strong generalization (arXiv 2312.09390) in JAX: fast, shardable, swept in one program.',
    license='Apache-2.0',
    python_requires='>=3.11',
    packages=find_packages(include=['researcher', 'w2s_jax', 'w2s_jax.*']),
    package_dir={'': '.'},  # an editable install is then a path, so that a script beside the clone finds the package
    package_data={'researcher': ['*.md', 'ideas/*', 'templates/*'],
                  'w2s_jax': ['assets/*', 'assets/**/*', 'report/templates/*']},
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['w2s=w2s_jax.engine.commands:main']},
)
