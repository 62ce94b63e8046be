import pytest
from synthetic_head import synthetic_model


@pytest.fixture(scope="session")
def model():
    return synthetic_model()
