"""One cluster document becomes what launches an EMR cluster: RunJobFlow, Terraform, CloudFormation."""
