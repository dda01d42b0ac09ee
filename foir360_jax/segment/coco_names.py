"""The names of COCO's 80 object categories, by their order and by COCO's own numbers.

Networks number them either way: YOLO counts 0 to 79, Mask R-CNN of the ONNX model zoo 1 to 80,
torchvision gives COCO's numbers, which leave ten out between 1 and 90.
"""

COCO_NAMES = (
  *("person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
  *("traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog"),
  *("horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack", "umbrella"),
  *("handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite"),
  *("baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle"),
  *("wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich"),
  *("orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch"),
  *("potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote"),
  *("keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book"),
  *("clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush"),
)
"""[80] in COCO's order."""

_UNUSED_NUMBERS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}

NAME_OF_COCO_NUMBER = dict(
  zip((n for n in range(1, 91) if n not in _UNUSED_NUMBERS), COCO_NAMES, strict=True)
)
"""COCO's `category_id` to its name."""
