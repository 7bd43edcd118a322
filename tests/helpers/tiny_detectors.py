"""Open-vocabulary detectors in toy width with random but fixed weights, saved as folders that transformers loads."""

from __future__ import annotations

import json
from pathlib import Path

import torch

WORDS = ("!", "[UNK]", ".", "a", "photo", "of", "person", "red", "car", "[CLS]", "[SEP]")


def grounding_dino(folder: Path) -> Path:
    """A Grounding DINO with two levels less and ten queries."""
    from transformers import BertConfig, GroundingDinoConfig, GroundingDinoForObjectDetection, SwinConfig

    torch.manual_seed(0)
    swin = SwinConfig(
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 1, 1],
        window_size=4,
        image_size=64,
        out_features=["stage2", "stage3", "stage4"],
    )
    bert = BertConfig(
        vocab_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    config = GroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        num_queries=10,
        max_text_len=16,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    size = {"shortest_edge": 128, "longest_edge": 192}
    _save_rest(folder, {"image_processor_type": "GroundingDinoImageProcessor", "size": size})
    return folder


def owl(folder: Path) -> Path:
    """An OWLv2 of one layer that looks at four patches."""
    from transformers import Owlv2Config, Owlv2ForObjectDetection

    torch.manual_seed(0)
    layer = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**layer, "vocab_size": 16, "max_position_embeddings": 8}
    vision = {**layer, "image_size": 32, "patch_size": 16}
    Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16)).save_pretrained(
        folder
    )
    size = {"height": 32, "width": 32}
    _save_rest(folder, {"image_processor_type": "Owlv2ImageProcessor", "size": size})
    return folder


def _save_rest(folder: Path, processor: dict[str, object]) -> None:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    ends = [(word, WORDS.index(word)) for word in ("[CLS]", "[SEP]")]
    words.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", pad_token="!", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
