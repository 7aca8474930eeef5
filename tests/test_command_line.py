import io
import os
import re
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import torch

import command_line
from checkpoint import load_checkpoint
from tests.common import TemporaryDirectoryTest
from train_torch import parse_args

HERE = Path(command_line.__file__).parent


class CommandLineTest(TemporaryDirectoryTest):
    def test_defaults_are_shown(self):
        with redirect_stdout(io.StringIO()) as shown, self.assertRaises(SystemExit):
            parse_args(["--help"])
        defaults = re.findall(r"default: ([^)]+)\)", " ".join(shown.getvalue().split()))
        expected = "32 [128, 256, 512] [512, 256] 0.0 0.0 1000 50 128 0.002 0.001 20 [0.0, 0.99]"
        expected += " 0.3 42 auto auto 0 GAN_logs/ 10"
        self.assertEqual(" ".join(defaults), expected, "other defaults, or not shown")

    def test_invalid_values_are_rejected_with_what_is_expected(self):
        (link := self.directory / "link").symlink_to("/gone/logs")
        for expected, invalid in {
            "an integer of at least 1": "--z_dim 0 --batch_size 0 --epochs x --decay_from 0",
            "integer of at least 1": "--save_every 0 --hidden_dims_gen 8,8 --hidden_dims_disc 1e3",
            "an integer of at least 0": "--seed -1 --ema -1 --num_workers -1",
            "below 1": "--dp_rate_gen 1.0 --dp_rate_disc nan --lr inf --lr_disc 1",
            "a number of at least 0": "--r1 -1 --r1 nan",
            "no device": "--device nonsense --device meta --device hpu",
            "no instructions": "--precision bf16",
            "letters": "--name a/b --job_id a/b",
            "not a directory": f"--log_dir {__file__}/logs --data_dir {__file__} --log_dir {link}",
        }.items():
            for flag, value in re.findall(r"(--\w+) (\S+)", invalid):
                reason = f"argument {flag}: .*{expected}.*'{value}'"
                with mock.patch("command_line.supports_bf16", return_value=False):
                    self.assert_rejected(reason, parse_args, "--device", "cpu", flag, value)
        self.assert_rejected("not allowed with", parse_args, "--resume", "x", "--job_id", "1")
        self.assert_rejected("unrecognized", parse_args, "--epoch", "3")  # no abbreviations

    def test_errors_and_ctrl_c_of_a_script_are_one_line(self):
        for code, status, printed in [
            ("raise OSError('disk')", 1, "-c: disk\n"),
            (
                "raise RuntimeError('DataLoader worker was killed')",
                1,
                "-c: DataLoader worker was killed\n",
            ),
            ("os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)", 130, "\nInterrupted.\n"),
            ("print('\u65e5', end='')", 0, "\\u65e5"),
        ]:
            code = f"import command_line, os, signal, time\ndef main():\n    {code}\n"
            code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            code += "command_line.run(main, OSError)"
            env = os.environ | {"PYTHONIOENCODING": "latin-1"}
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True)
            found = done.returncode, done.stdout + done.stderr
            self.assertEqual(found, (status, printed), "another exit status, or not one line")

    def test_directories_that_cannot_be_written_are_found_by_looking(self):
        home = mock.patch.dict(os.environ, {"HOME": str(self.directory)})
        with home:
            found = parse_args(["--log_dir=~/x", "--data_dir=~"])
        expected = str(self.directory / "x"), str(self.directory)
        self.assertEqual((found.log_dir, found.data_dir), expected, "~ is not the home directory")
        self.assertTrue(os.path.isabs(parse_args([]).log_dir), "relative paths are saved")
        with mock.patch("os.access", return_value=False):  # for root, everything can be written
            self.assert_rejected("no permission", parse_args, "--log_dir", self.directory / "x")
        with mock.patch("os.access", lambda path, mode: mode != os.W_OK):
            self.assert_rejected("no permission", parse_args, "--log_dir", self.directory)
            command_line.directory(str(self.directory))  # such as --data_dir, is only read
        with mock.patch("os.path.lexists", return_value=False):  # a drive that there is not
            self.assert_rejected("not a directory", parse_args, "--log_dir", "/z/x")

    def test_streams_that_are_no_files(self):  # as in an editor or a notebook
        no_handler = mock.patch("signal.signal")
        with no_handler, mock.patch.multiple(sys, stdout=io.StringIO(), stderr=None):
            command_line.run(lambda: print("x"), OSError)
            printed = sys.stdout.getvalue()
        self.assertEqual(printed, "x\n")

    def test_a_home_directory_that_there_is_not(self):
        self.assertTrue(os.path.isabs(command_line.path("~nobody-at-all/x")))
        self.assertRaisesRegex(OSError, "nobody-at-all", load_checkpoint, "~nobody-at-all/x")

    def test_bfloat16_on_other_accelerators(self):
        available = mock.patch("torch.amp.is_autocast_available", return_value=True)
        with available, mock.patch("torch.autocast") as autocast:
            self.assertTrue(command_line.supports_bf16("mps"), "bfloat16 is not used")
            autocast.side_effect = lambda *_: warnings.warn("only float16 here", stacklevel=1)
            self.assertFalse(command_line.supports_bf16("mps"), "torch would train in float32")
        with mock.patch.object(torch, "cpu", mock.Mock(spec=["_is_avx512_bf16_supported"])) as cpu:
            cpu._is_avx512_bf16_supported.return_value = True
            self.assertTrue(command_line.supports_bf16("cpu"), "an older torch has instructions")
