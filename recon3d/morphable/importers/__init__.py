"""Face models that others publish, converted into `FaceModel`; one small adapter a family."""

from recon3d.morphable.importers.families import FAMILIES, Family, import_model, recognise

__all__ = ["FAMILIES", "Family", "import_model", "recognise"]
