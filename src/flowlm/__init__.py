"""flowlm: flow language models, trained, distilled into one-step maps, judged and used."""

__version__ = "0.1.0"
