"""What `import headwater` offers, and what importing it must not load."""

import subprocess
import sys

import headwater


def test_public_names() -> None:
    assert headwater.__all__ == [
        "Candidate",
        "CandidateRequest",
        "Delivery",
        "Engagement",
        "EngagementProducer",
        "HeadwaterClient",
        "Item",
        "Settings",
        "UserCandidates",
    ]
    for name in headwater.__all__:
        assert getattr(headwater, name).__name__ == name


def test_the_base_install_is_light() -> None:
    code = (
        "import sys, headwater; headwater.EngagementProducer, headwater.HeadwaterClient; "
        "print(sorted({'torch', 'faust', 'hnswlib', 'onnxruntime', 'fastapi', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_model_repository_does_not_shadow_onnx() -> None:
    import onnx

    assert onnx.__file__ is not None
    assert "site-packages" in onnx.__file__
