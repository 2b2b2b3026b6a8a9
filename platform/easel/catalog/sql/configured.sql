-- Changes of these tables raise the configuration's revision.

CALL core_configured('catalog_pool', 'catalog_model', 'catalog_modelversion');
