"""The commands by name; each is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

COMMANDS: dict[str, tuple[str, str]] = {  # MODULE:CLASS in vidseg_pipelines.commands, and what it does
    "run": ("run:RunCommand", "segment the objects of a video"),
    "image": ("image:ImageCommand", "segment images from boxes, points or automatically"),
    "batch": ("batch:BatchCommand", "segment many videos; continues where it stopped"),
    "batch status": ("batch:StatusCommand", "progress of a batch"),
    "eval davis": ("eval_videos:DavisCommand", "J&F of DAVIS 2017"),
    "eval ytvis": ("eval_videos:YtvisCommand", "tube AP of YouTube-VIS"),
    "eval hq-ytvis": ("eval_videos:HqYtvisCommand", "tube mask AP and boundary AP of HQ-YTVIS"),
    "eval coco": ("eval_images:CocoCommand", "mask AP and boundary AP of COCO and UVO"),
    "eval lvis": ("eval_images:LvisCommand", "mask AP and boundary AP of LVIS"),
    "eval masks": ("eval_images:MasksCommand", "mIoU and mBIoU of two folders of masks"),
    "eval vos": ("eval_videos:VosCommand", "J&F of YouTube-VOS and MOSE-like folders"),
    "reproduce": ("reproduce:ReproduceCommand", "run a whole benchmark or a table of the HQ-SAM paper"),
    "train hq": ("train:TrainHqCommand", "train the HQ parts of a frozen SAM"),
    "train base": ("train:TrainBaseCommand", "train the embedded compact SAM"),
    "train objectness": (
        "train_objectness:TrainObjectnessCommand",
        "train the objectness score of the compact model",
    ),
    "train xmem": ("train_xmem:TrainXmemCommand", "train the embedded compact XMem"),
    "suggest": ("suggest:SuggestCommand", "name the frames whose correction would help most"),
    "export": ("export:ExportCommand", "convert a finished run to other formats"),
    "export-onnx": ("export_onnx:ExportOnnxCommand", "export encoder and decoder as ONNX files"),
    "weights list": (
        "weights:ListCommand",
        "weights that load by name, with source and licence",
    ),
    "weights fetch": ("weights:FetchCommand", "download and verify weights"),
    "weights verify": ("weights:VerifyCommand", "check a file against the catalogue"),
    "weights convert": (
        "weights:ConvertCommand",
        "convert official or Hugging Face files to safetensors",
    ),
    "serve": ("serve:ServeCommand", "sessions over HTTP, for other programs and labelling tools"),
    "ui": ("ui:UiCommand", "click, see, run and correct in the browser"),
    "completion": ("completion:CompletionCommand", "a script that completes commands and options in the shell"),
    "doctor": ("doctor:DoctorCommand", "show versions, devices, codecs, weights"),
}

ALIASES = {"bench-run": "reproduce"}  # former names, which keep working for one version


def find_command(name: str) -> Any:
    """The class of a command in :data:`COMMANDS`, imported now."""
    module, attribute = COMMANDS[name][0].split(":")
    return getattr(importlib.import_module(f"vidseg_pipelines.commands.{module}"), attribute)
