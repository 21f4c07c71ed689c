"""A language model small enough for tests: a folder as Hugging Face lays it out, one token a character."""
import json
import pathlib
import shutil

import numpy as np
import safetensors.numpy
import tokenizers

GOLDENS = pathlib.Path(__file__).parents[1] / 'parity' / 'goldens'
CHARACTERS = 'abcdefghijklmnopqrstuvwxyz .:?ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789'  # 'a' has the padding's id


def folder(path: pathlib.Path, golden: str = 'llama-old', seed: int = 0) -> pathlib.Path:
    """A copy of a golden model with an embedding for every character, 128 positions and a tokenizer."""
    shutil.copytree(GOLDENS / golden, path, ignore=shutil.ignore_patterns('expected.npz'))
    tensors = safetensors.numpy.load_file(path / 'model.safetensors')
    name = next(k for k in tensors if k.endswith('embed_tokens.weight'))
    width = tensors[name].shape[1]
    tensors[name] = np.random.default_rng(seed).normal(size=(len(CHARACTERS), width)).astype(np.float32)
    safetensors.numpy.save_file(tensors, path / 'model.safetensors')
    config = json.loads((path / 'config.json').read_text())
    config |= {'vocab_size': len(CHARACTERS), 'max_position_embeddings': 128}
    (path / 'config.json').write_text(json.dumps(config))
    tokenizer(path)
    return path


def tokenizer(path: pathlib.Path, start: str = '') -> None:
    """Writes a tokenizer of characters; `start` is put before every text."""
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({c: i for i, c in enumerate(CHARACTERS)}, unk_token='?'))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex('.'), 'isolated')
    if start:
        made.post_processor = tokenizers.processors.TemplateProcessing(
            single=f'{start} $A', special_tokens=[(start, CHARACTERS.index(start))])
    made.save(str(path / 'tokenizer.json'))
    (path / 'tokenizer_config.json').write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
