"""A models.py of convolutional networks, with the course's arguments."""

from torch import nn


class GeneratorMLP(nn.Module):
    def __init__(self, z_dim=32, hidden_dims=(), output_shape=(1, 28, 28), dp_rate=0.1):
        super().__init__()
        self.project = nn.Linear(z_dim, 32 * 7 * 7)
        self.upsample = nn.Sequential(
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.ConvTranspose2d(16, output_shape[0], 4, stride=2, padding=1),
            nn.Tanh(),
        )

    @property
    def device(self):
        return self.project.weight.device

    def forward(self, z):
        return self.upsample(self.project(z).view(-1, 32, 7, 7))


class DiscriminatorMLP(nn.Module):
    def __init__(self, input_dims=784, hidden_dims=(), dp_rate=0.3):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 32, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 1),
        )

    def forward(self, x):
        return self.layers(x)
