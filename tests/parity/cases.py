"""CASES, IMAGES: a tiny checkpoint of each family, with the settings that converters get wrong.

A case is its config.json as it would be published, the name of transformers' class, and how its tensors are
named on disk where that is not how transformers names them today.
"""
import dataclasses
import re
from collections.abc import Callable
from typing import Any

import numpy as np

Tensors = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Case:
    raw: dict[str, Any]
    kind: str = 'AutoModelForCausalLM'
    rename: Callable[[Tensors], Tensors] = lambda tensors: tensors
    shards: int = 1
    dtype: str = 'float32'
    pixels: tuple[int, int] = (0, 0)  # of models of images: height and width of what they are asked


def renamed(*pairs: tuple[str, str], **more: np.ndarray) -> Callable[[Tensors], Tensors]:
    """Regular expressions replaced in every name; then tensors added, dots in their names written as `__`."""
    def rename(tensors: Tensors) -> Tensors:
        for old, new in pairs:
            tensors = {re.sub(old, new, k): v for k, v in tensors.items()}
        return tensors | {k.replace('__', '.'): v for k, v in more.items()}
    return rename


_SIZES = {'vocab_size': 40, 'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 4,
          'intermediate_size': 20, 'max_position_embeddings': 24}
_GROUPED = {**_SIZES, 'num_key_value_heads': 2, 'rms_norm_eps': 1e-5, 'hidden_act': 'silu', 'pad_token_id': 0}
_MASK = np.tril(np.ones((1, 1, 24, 24), np.float32))
_FOUR = {**_GROUPED, 'num_hidden_layers': 4, 'head_dim': 8, 'hidden_activation': 'gelu_pytorch_tanh',
         'query_pre_attn_scalar': 10, 'sliding_window': 4, 'tie_word_embeddings': True}
_LLAMA3 = {'rope_type': 'llama3', 'factor': 4.0, 'low_freq_factor': 1.0, 'high_freq_factor': 4.0,
           'original_max_position_embeddings': 12}

CASES: dict[str, Case] = {
    'bert': Case({**_SIZES, 'model_type': 'bert', 'architectures': ['BertForMaskedLM'], 'hidden_act': 'gelu',
                  'type_vocab_size': 2, 'layer_norm_eps': 1e-12, 'pad_token_id': 0}, 'AutoModelForMaskedLM'),
    'bert-old': Case({**_SIZES, 'architectures': ['BertModel'], 'model_type': 'bert', 'hidden_act': 'gelu_new',
                      'position_embedding_type': 'absolute', 'type_vocab_size': 3, 'layer_norm_eps': 1e-3,
                      'torch_dtype': 'float16'}, 'AutoModel',
                     renamed((r'LayerNorm\.weight', 'LayerNorm.gamma'), (r'LayerNorm\.bias', 'LayerNorm.beta'),
                             embeddings__position_ids=np.arange(24)[None]), dtype='float16'),
    'roberta': Case({**_SIZES, 'model_type': 'roberta', 'architectures': ['RobertaForMaskedLM'], 'hidden_act': 'gelu',
                     'type_vocab_size': 1, 'layer_norm_eps': 1e-5, 'pad_token_id': 1}, 'AutoModelForMaskedLM'),
    'gpt2': Case({'model_type': 'gpt2', 'architectures': ['GPT2LMHeadModel'], 'vocab_size': 40, 'n_embd': 16,
                  'n_layer': 2, 'n_head': 4, 'n_positions': 24, 'n_ctx': 24, 'activation_function': 'gelu_new',
                  'layer_norm_epsilon': 1e-5}),
    'gpt2-old': Case({'model_type': 'gpt2', 'vocab_size': 40, 'n_embd': 16, 'n_layer': 2, 'n_head': 2, 'n_inner': 20,
                      'n_positions': 24, 'activation_function': 'gelu', 'scale_attn_weights': False,
                      'tie_word_embeddings': False}, rename=renamed((r'^transformer\.', ''), h__0__attn__bias=_MASK,
                                                                    h__0__attn__masked_bias=np.float32(-1e4))),
    'neox': Case({**_SIZES, 'model_type': 'gpt_neox', 'architectures': ['GPTNeoXForCausalLM'], 'rotary_pct': 0.25,
                  'rotary_emb_base': 100, 'use_parallel_residual': True, 'hidden_act': 'gelu', 'hidden_size': 32,
                  'tie_word_embeddings': False},
                 rename=renamed((r'^lm_head', 'embed_out'), gpt_neox__layers__1__attention__bias=_MASK,
                                gpt_neox__layers__1__attention__masked_bias=np.float32(-1e9),
                                gpt_neox__layers__0__attention__rotary_emb__inv_freq=np.ones(1, np.float32))),
    'neox-sequential': Case({**_SIZES, 'model_type': 'gpt_neox', 'architectures': ['GPTNeoXForCausalLM'],
                             'rope_parameters': {'rope_type': 'linear', 'factor': 2.0, 'rope_theta': 50.0,
                                                 'partial_rotary_factor': 1.0},
                             'attention_bias': False, 'use_parallel_residual': False, 'hidden_act': 'relu',
                             'layer_norm_eps': 1e-3, 'tie_word_embeddings': True}),
    'opt': Case({'model_type': 'opt', 'architectures': ['OPTForCausalLM'], 'vocab_size': 40, 'hidden_size': 16,
                 'num_hidden_layers': 2, 'num_attention_heads': 4, 'ffn_dim': 20, 'max_position_embeddings': 24,
                 'word_embed_proj_dim': 16, 'do_layer_norm_before': True, 'activation_function': 'relu'}),
    'opt-post': Case({'model_type': 'opt', 'architectures': ['OPTForCausalLM'], 'vocab_size': 40, 'hidden_size': 16,
                      'num_hidden_layers': 2, 'num_attention_heads': 2, 'ffn_dim': 20, 'max_position_embeddings': 24,
                      'word_embed_proj_dim': 12, 'do_layer_norm_before': False, 'activation_function': 'gelu',
                      'enable_bias': False}, rename=renamed((r'^model\.', ''))),
    'llama': Case({**_GROUPED, 'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'head_dim': 6,
                   'attention_bias': True, 'mlp_bias': True, 'tie_word_embeddings': False,
                   'rope_parameters': {**_LLAMA3, 'rope_theta': 20.0}}, shards=3),
    'llama-old': Case({**_GROUPED, 'model_type': 'llama', 'architectures': ['LlamaModel'], 'rope_theta': 50.0,
                       'rope_scaling': {'type': 'linear', 'factor': 2.0}, 'tie_word_embeddings': True,
                       'torch_dtype': 'bfloat16'},
                      rename=renamed((r'^model\.', ''),
                                     layers__0__self_attn__rotary_emb__inv_freq=np.ones(2, np.float32)),
                      dtype='bfloat16'),
    'llama3-old': Case({**_GROUPED, 'model_type': 'llama', 'architectures': ['LlamaForCausalLM'], 'rope_theta': 20.0,
                        'head_dim': 8, 'rope_scaling': _LLAMA3, 'tie_word_embeddings': True}),
    'mistral': Case({**_GROUPED, 'model_type': 'mistral', 'architectures': ['MistralForCausalLM'], 'sliding_window': 4,
                     'head_dim': 6, 'rope_theta': 100.0, 'tie_word_embeddings': False}),
    'qwen2': Case({**_GROUPED, 'num_hidden_layers': 3, 'model_type': 'qwen2', 'architectures': ['Qwen2ForCausalLM'],
                   'use_sliding_window': True, 'sliding_window': 3, 'max_window_layers': 1, 'rope_theta': 100.0,
                   'tie_word_embeddings': True}),
    'qwen2-full': Case({**_GROUPED, 'model_type': 'qwen2', 'architectures': ['Qwen2ForCausalLM'],
                        'use_sliding_window': False, 'sliding_window': 3, 'max_window_layers': 0,
                        'num_key_value_heads': 4, 'tie_word_embeddings': False}),
    'qwen3': Case({**_GROUPED, 'model_type': 'qwen3', 'architectures': ['Qwen3ForCausalLM'], 'head_dim': 6,
                   'num_key_value_heads': 1, 'attention_bias': True, 'tie_word_embeddings': True,
                   'rope_parameters': {'rope_type': 'default', 'rope_theta': 100.0}}),
    'gemma2': Case({**_FOUR, 'model_type': 'gemma2', 'architectures': ['Gemma2ForCausalLM'], 'num_hidden_layers': 3,
                    'attn_logit_softcapping': 2.0, 'final_logit_softcapping': 3.0, 'rope_theta': 100.0}),
    'gemma2-uncapped': Case({**_FOUR, 'model_type': 'gemma2', 'architectures': ['Gemma2Model'], 'num_hidden_layers': 2,
                             'attn_logit_softcapping': None, 'final_logit_softcapping': None, 'attention_bias': True,
                             'layer_types': ['full_attention', 'sliding_attention'], 'tie_word_embeddings': False}),
    'gemma3': Case({**_FOUR, 'model_type': 'gemma3_text', 'architectures': ['Gemma3ForCausalLM'],
                    'layer_types': ['sliding_attention', 'full_attention', 'full_attention', 'sliding_attention'],
                    'rope_parameters': {'full_attention': {'rope_type': 'linear', 'factor': 4.0, 'rope_theta': 100.0},
                                        'sliding_attention': {'rope_type': 'default', 'rope_theta': 10.0}}}),
    'gemma3-old': Case({**_FOUR, 'model_type': 'gemma3_text', 'architectures': ['Gemma3ForCausalLM'],
                        'num_hidden_layers': 3, 'num_key_value_heads': 1, 'sliding_window_pattern': 2,
                        'rope_theta': 1000.0, 'rope_local_base_freq': 10.0, 'final_logit_softcapping': 2.0,
                        'rope_scaling': {'rope_type': 'linear', 'factor': 8.0}}),
}

_PATCHED = {'hidden_size': 16, 'num_hidden_layers': 2, 'num_attention_heads': 4, 'image_size': 12, 'patch_size': 4,
            'num_channels': 3}
_ATTENTION = ((r'attention\.q_proj', 'attention.attention.query'), (r'attention\.k_proj', 'attention.attention.key'),
              (r'attention\.v_proj', 'attention.attention.value'), (r'attention\.o_proj', 'attention.output.dense'))
_VIT = (*_ATTENTION, (r'(^|\.)layers\.', r'\1encoder.layer.'), (r'mlp\.fc1', 'intermediate.dense'),
        (r'mlp\.fc2', 'output.dense'))
_RESIDUAL = {'model_type': 'resnet', 'num_channels': 3, 'embedding_size': 4}

IMAGES: dict[str, Case] = {
    'resnet-basic': Case({**_RESIDUAL, 'architectures': ['ResNetForImageClassification'], 'hidden_sizes': [4, 6],
                          'depths': [2, 1], 'layer_type': 'basic', 'hidden_act': 'relu'},
                         'AutoModelForImageClassification', renamed(
                             resnet__embedder__embedder__normalization__num_batches_tracked=np.array(7)),
                         pixels=(20, 24)),
    'resnet-bottleneck': Case({**_RESIDUAL, 'architectures': ['ResNetModel'], 'hidden_sizes': [8, 12],
                               'depths': [1, 2], 'layer_type': 'bottleneck'}, 'AutoModel', pixels=(21, 17)),
    'resnet-early': Case({**_RESIDUAL, 'architectures': ['ResNetModel'], 'hidden_sizes': [8, 8], 'depths': [1, 1],
                          'downsample_in_first_stage': True, 'downsample_in_bottleneck': True, 'hidden_act': 'silu'},
                         'AutoModel', pixels=(33, 32)),
    'vit': Case({**_PATCHED, 'model_type': 'vit', 'architectures': ['ViTForImageClassification'],
                 'intermediate_size': 20}, 'AutoModelForImageClassification', renamed(*_VIT), pixels=(12, 12)),
    'vit-pooled': Case({**_PATCHED, 'model_type': 'vit', 'architectures': ['ViTModel'], 'intermediate_size': 12,
                        'qkv_bias': False, 'hidden_act': 'gelu_new', 'layer_norm_eps': 1e-3}, 'AutoModel',
                       renamed(*_VIT), pixels=(12, 20)),
    'dinov2': Case({**_PATCHED, 'model_type': 'dinov2', 'architectures': ['Dinov2Model'], 'mlp_ratio': 2,
                    'patch_size': 3, 'layerscale_value': .5}, 'AutoModel', renamed(*_ATTENTION), pixels=(9, 17)),
}
