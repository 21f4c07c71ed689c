"""Models of images: ResNet and vision transformers in Hugging Face's layouts."""
