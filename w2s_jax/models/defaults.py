"""What a model is trained with where a config says nothing. One table, each number with its source."""

LARGE = 700_000_000  # parameters; gpt2-large has 774 million

FULL = {  # family: (below LARGE, from LARGE on), source
    'gpt2': (5e-5, 1e-5),  # openai/weak-to-strong, MODELS_DICT: gpt2 and -medium 5e-5, -large and -xl 1e-5
    'bert': (5e-5, 2e-5),  # Devlin et al. 2019 (arXiv 1810.04805), A.3: the ends of the range they searched
    'roberta': (3e-5, 1e-5),  # Liu et al. 2019 (arXiv 1907.11692), table 10: the same
    'chess': (3e-4, 3e-4),  # ours, for the built-in ladder; not tuned
    'mlp': (3e-4, 3e-4),  # ours; not tuned
    'untrained resnet': (1e-3, 1e-3),  # ours, for the built-in networks for images; not tuned
    'untrained vit': (1e-3, 1e-3),  # the same
    'logistic': (1e-2, 1e-2),  # ours; not tuned
}
OTHER = (5e-5, 1e-5)  # any other pretrained model, by analogy with gpt2
LORA = (5e-4, 8e-5)  # EleutherAI/w2s: Qwen1.5-0.5B 5e-4, Llama-3-8B 8e-5
PROBE = 1e-3  # arXiv 2312.09390, D.2: Adam, 1e-3, no weight decay, batch 128


def learning_rate(family: str, mode: str, num_params: int) -> float:
    """The default of a family's model of that size (parameters, the frozen ones too) in a fine-tuning mode."""
    if mode == 'probe':
        return PROBE
    table = LORA if mode == 'lora' else FULL.get(family, OTHER)
    return table[num_params >= LARGE]
