"""Looking into trained models: what an answer rests on, where attention goes, what each layer knows."""
