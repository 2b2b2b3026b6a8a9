-- A change of these tables increments the configuration's revision, which invalidates caches (core/revision.py).

CALL core_configured('catalog_pool', 'catalog_model', 'catalog_modelversion');
