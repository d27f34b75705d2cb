"""Certificates for the tests, made with openssl(1) when they are needed."""

import os
import subprocess


def make(folder):
    """ca.pem; server.pem for 127.0.0.1 and client.pem, which it has signed; stranger.pem, which signed itself. Each with its NAME.key."""

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "stranger"):
        openssl("req", "-x509", *curve, "-days", "2", "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        with open(os.path.join(folder, "extension"), "w", encoding="ascii") as file:
            file.write(extension)
        openssl("req", "-new", *curve, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", "csr")
        openssl("x509", "-req", "-in", "csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "extension",
                "-out", f"{name}.pem")
