"""A mesh in containers from Kubernetes manifests alone: a kubelet for one machine without a cluster.

fields.py knows the fields, pods.py reads them, contents.py makes the files of volumes; tokens.py and api_server.py
stand for the API server; kubelet.py starts and watches pods; overlay.py brings keys, Secrets and an overlay together.
"""
