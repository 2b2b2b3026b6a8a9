"""Commands that run the engine alone, without a worker: `easel replay` and `easel quality`."""
