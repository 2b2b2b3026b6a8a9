"""Commands that run the engine without a worker: `easel replay` and `easel quality`. Not part of a worker."""
