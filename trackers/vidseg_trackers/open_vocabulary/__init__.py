"""Objects by their names: open-vocabulary detectors of Hugging Face transformers."""
