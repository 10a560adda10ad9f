"""One file a step, in the order of ``flowkit.store.schema.VERSIONS``. A step never changes once it was released."""
