"""The resources of the Compute Abstraction Layer: the one package that everybody imports.

The pydantic models here are the user's manual, the schema of the CRDs and the types that the operator, the api, the relay
and calctl share. `python -m cal_crds` writes the CRD files from them.

Beside them lies what several processes need alike: the way to the API server (`cluster`, `transport`), the start of an HTTP service
(`serving`, `loopback`), and how money, names, models' keys and kept logs are written.
"""
