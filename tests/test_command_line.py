import io
import re
from contextlib import redirect_stdout
from unittest import mock

import command_line
from tests.common import TemporaryDirectoryTest
from train_torch import parse_args


class CommandLineTest(TemporaryDirectoryTest):
    def test_defaults_are_shown(self):
        with redirect_stdout(io.StringIO()) as shown, self.assertRaises(SystemExit):
            parse_args(["--help"])
        defaults = re.findall(r"default: ([^)]+)\)", " ".join(shown.getvalue().split()))
        expected = "32 [128, 256, 512] [512, 256] 0.0 0.0 1000 50 128 0.002 0.001 20 [0.0, 0.99]"
        expected += " 0.3 42 auto fp32 0 GAN_logs/ 10"
        self.assertEqual(" ".join(defaults), expected, "other defaults, or not shown")

    def test_invalid_values_are_rejected_with_what_is_expected(self):
        for expected, invalid in {
            "an integer of at least 1": "--z_dim 0 --batch_size 0 --epochs x --decay_from 0",
            "integer of at least 1": "--save_every 0 --hidden_dims_gen 8,8 --hidden_dims_disc 1e3",
            "an integer of at least 0": "--seed -1 --ema -1 --num_workers -1",
            "below 1": "--dp_rate_gen 1.0 --dp_rate_disc nan --lr inf --lr_disc 1",
            "a number of at least 0": "--r1 -1 --r1 nan",
            "no device": "--device nonsense --device meta",
            "no instructions": "--precision bf16",
            "letters": "--name a/b --job_id a/b",
            "not a directory": f"--log_dir {__file__}/logs --data_dir {__file__}",
        }.items():
            for flag, value in re.findall(r"(--\w+) (\S+)", invalid):
                reason = f"argument {flag}: .*{expected}.*'{value}'"
                with mock.patch("command_line.supports_bf16", return_value=False):
                    self.assert_rejected(reason, parse_args, "--device", "cpu", flag, value)
        self.assert_rejected("not allowed with", parse_args, "--resume", "x", "--job_id", "1")
        self.assert_rejected("unrecognized", parse_args, "--epoch", "3")  # no abbreviations

    def test_ctrl_c_ends_a_script_with_one_line(self):  # errors: in test_train_torch.py
        with redirect_stdout(io.StringIO()) as printed, self.assertRaises(SystemExit) as stop:
            command_line.run(mock.Mock(side_effect=KeyboardInterrupt))
        ended = stop.exception.code, printed.getvalue()
        self.assertEqual(ended, (130, "\nInterrupted.\n"), "not 128 + SIGINT, or not one line")
