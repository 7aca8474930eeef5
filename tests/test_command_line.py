import io
import os
import re
import subprocess
import sys
from argparse import ArgumentTypeError
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

import command_line
from tests.common import TemporaryDirectoryTest
from train_torch import parse_args

HERE = Path(command_line.__file__).parent


class CommandLineTest(TemporaryDirectoryTest):
    def test_defaults_are_shown(self):
        with redirect_stdout(io.StringIO()) as shown, self.assertRaises(SystemExit):
            parse_args(["--help"])
        defaults = re.findall(r"default: ([^)]+)\)", " ".join(shown.getvalue().split()))
        expected = "train_torch:GAN 32 10 [128, 256, 512] [512, 256] 0.0 0.0 1000 50 128 0.002"
        expected += " 0.001 20 [0.0, 0.99] 0.3 42 auto auto None 0 GAN_logs/ None 10 False"
        self.assertEqual(" ".join(defaults), expected, "other defaults, or not shown")

    def test_invalid_values_are_rejected_with_what_is_expected(self):
        for expected, invalid in {
            "an integer of at least 1": "--z_dim 0 --batch_size 0 --epochs x --decay_from 0",
            "integer of at least 1": "--save_every 0 --hidden_dims_gen 8,8 --hidden_dims_disc 1e3",
            "an integer of at least 0": "--ema -1 --num_workers -1",
            "an integer from 0 to": "--seed -1 --seed 18446744073709551616",
            "below 1": "--dp_rate_gen 1.0 --dp_rate_disc nan --lr inf --lr_disc 1",
            "a number of at least 0": "--r1 -1 --r1 nan",
            "no device": "--device nonsense --device meta --device hpu",
            "letters": "--name a/b --name .. --name .a",
            "MODULE:CLASS": "--gan my_gan --gan my_gan: --gan :A",
        }.items():
            for flag, value in re.findall(r"(--\w+) (\S+)", invalid):
                reason = f"argument {flag}: .*{expected}.*'{value}'"
                self.assert_rejected(reason, parse_args, "--device", "cpu", flag, value)
        self.assert_rejected("unrecognized", parse_args, "--epoch", "3")  # no abbreviations

    def test_a_gpu_that_cannot_compute_is_one_line(self):
        too_old = "CUDA error: no kernel image is available for execution on the device\nMore."
        with mock.patch("torch.accelerator.is_available", return_value=True):
            cuda = mock.patch("torch.accelerator.current_accelerator", return_value="cuda")
            with cuda, mock.patch("torch.ones", side_effect=RuntimeError(too_old)):
                self.assert_rejected("'cuda' .*no kernel image.*--device cpu", parse_args)

    def test_patterns_are_expanded_where_the_shell_does_not(self):
        for name in ("b", "a", "c"):
            (self.directory / name).touch()
        pattern, files = str(self.directory / "[ab]"), [str(self.directory / x) for x in "ab"]
        self.assertEqual(command_line.expanded([pattern, "x*", "y"]), [*files, "x*", "y"])

    def test_paths_are_absolute(self):
        for given, expected in [
            ("~/x", str(Path.home() / "x")),
            ("x", str(Path.cwd() / "x")),
            ("~nobody-at-all/x", str(Path.cwd() / "~nobody-at-all" / "x")),
        ]:
            args = parse_args(["--log_dir", given, "--data_dir", given])
            self.assertEqual((args.log_dir, args.data_dir), (expected, expected))

    def test_errors_and_ctrl_c_of_a_script_are_one_line(self):
        for error, status, line in [
            (OSError("disk"), 1, "x.py: disk\n"),
            (FloatingPointError("diverged"), 1, "x.py: diverged\n"),
            (ArgumentTypeError("--lr"), 2, "x.py: --lr\n"),
            (RuntimeError("CUDA out\nx"), 1, "x.py: CUDA out; try --device cpu\n"),
        ]:
            with (
                redirect_stdout(io.StringIO()),
                redirect_stderr(io.StringIO()) as errors,
                mock.patch("sys.argv", ["/a/x.py"]),
                self.assertRaises(SystemExit) as stop,
            ):
                command_line.run(mock.Mock(side_effect=error))
            self.assertEqual((stop.exception.code, errors.getvalue()), (status, line))
        with self.assertRaises(RuntimeError, msg="a mistake of ours is hidden"):
            command_line.run(mock.Mock(side_effect=RuntimeError("shapes differ")))
        code = "import command_line, os, signal, time\ndef main():\n    print('\u65e5', end='')\n"
        code += "    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(9)\n"
        code += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        code += "command_line.run(main)"
        env = os.environ | {"PYTHONIOENCODING": "latin-1"}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=HERE, env=env, capture_output=True, text=True)
        found = done.returncode, done.stdout + done.stderr
        self.assertEqual(found, (130, "\\u65e5\n"), "another exit status, or not one line")
