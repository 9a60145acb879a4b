"""EMR security configurations: read, checked against a release, generated and compared, all of it offline.

A security configuration is one JSON document that a cluster names when it is created. AWS publishes no schema for it
(its API takes a string), so the schema is here: `document` is the typed model, `lint` the rules.
"""
