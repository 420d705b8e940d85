"""Writes a model in another format: safetensors, ONNX or OpenVINO IR, also quantized to int8."""
