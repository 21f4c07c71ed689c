"""Images and their backbones (arXiv 2312.09390, appendix D.1): from files of images, not from features.

  python -m experiments.run --config=configs/paper/vision_images.py --workdir=runs/images --config.task.path=FOLDER \
      --config.teacher.model=FOLDER --config.student.model=FOLDER
  python -m experiments.run --config=configs/paper/vision_images.py:scratch --workdir=runs/scratch \
      --config.task.path=FOLDER

Needs images: a .parquet file with a column of encoded images and one of classes, a folder of such files (train, test),
or a .npz file with `image` `[N, H, W, 3]` uint8 and `label` `[N]` (other names: task.image, task.label). `task.size`
is the side that they are resized and cut to.

Without a word: linear probes on frozen backbones, whose features are computed once. Models are folders or hub ids with
safetensors, of ResNet, ViT (DINO) or DINOv2; by default a ResNet-18 trained on ImageNet's labels teaches DINO ViT-B/8.
Not as in the paper, whose supervisor is AlexNet's own softmax over ImageNet's classes: there is no AlexNet among these
families, and none with safetensors at hand; what it says of each image can be brought as an array
(configs/paper/vision.py:given, where the published numbers are). Neither AlexNet nor DINO was run here.

`scratch`, some ten minutes for 4000 images on two cores (10 TFLOP): built-in networks for images of about 32 pixels,
nothing pretrained, all of both trained: it shows that the path works, not how pretrained models generalise. Its
numbers on a small part of CIFAR-10: docs/methods.md.
"""
from w2s_jax.config import compose, default_config
from w2s_jax.errors import ConfigError


def get_config(models: str = 'pretrained'):
    """`models`: pretrained (probes on frozen backbones), or scratch (built-in networks, all of them trained)."""
    if models not in ('pretrained', 'scratch'):
        raise ConfigError(f"--config=configs/paper/vision_images.py:{models}: unknown, expected 'pretrained' or "
                          "'scratch'")
    c = default_config()
    c.task.name = 'images'
    c.method.baselines = ()
    c.train.eval_batch_size = 250
    c = compose(c)
    if models == 'scratch':
        c.teacher.model, c.student.model = 'resnet-xs', 'resnet-s'
        c.train.epochs, c.optimizer.learning_rate = 20, 3e-3
        return compose(c)
    c.task.size = 224
    c.teacher.model, c.student.model = 'microsoft/resnet-18', 'facebook/dino-vitb8'
    c.teacher.mode = c.student.mode = 'probe'
    c.train.batch_size, c.train.epochs, c.train.window, c.train.eval_batch_size = 128, 20, 1, 64
    c.optimizer.learning_rate = 1e-3
    return compose(c)
