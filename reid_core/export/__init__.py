"""Models in other formats: safetensors, ONNX and OpenVINO IR, with int8 quantization."""
