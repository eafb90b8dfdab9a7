"""The resources of the Compute Abstraction Layer: the one package that everybody imports.

The pydantic models here are the user's manual, the schema of the CRDs and the types that the operator, the api, the relay
and calctl share. `python -m cal_crds` writes the CRD files from them.
"""
