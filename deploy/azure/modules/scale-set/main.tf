# Machines that are all alike: origins, edges, or gateways. Each joins the cluster when it boots, and drains when it is told to go.

variable "name" {
  description = "Beginning of all names."
  type        = string
}

variable "resource_group" {
  description = "Name of the resource group."
  type        = string
}

variable "location" {
  description = "Azure region."
  type        = string
}

variable "tags" {
  description = "Tags of all resources."
  type        = map(string)
}

variable "role" {
  description = "origin, edge or gateway."
  type        = string
}

variable "size" {
  description = "Size of a machine."
  type        = string
}

variable "instances" {
  description = "How many at first; autoscale changes that."
  type        = number
}

variable "subnet_id" {
  description = "Their subnet. With it come the rules of who may speak to them."
  type        = string
}

variable "identity_id" {
  description = "The machines' identity."
  type        = string
}

variable "public_address" {
  description = "Whether each gets a public address, as media goes straight to the node."
  type        = bool
}

variable "application_gateway_pools" {
  description = "Pools of an Application Gateway that they join."
  type        = list(string)
  default     = []
}

variable "load_balancer_pools" {
  description = "Pools of a load balancer that they join."
  type        = list(string)
  default     = []
}

variable "values" {
  description = "What the boot script is told, by name; see cloud-init/node.sh. No secrets."
  type        = map(string)
}

variable "drain_minutes" {
  description = "How long before a machine goes it is told."
  type        = number
}

variable "ssh_public_key" {
  description = "Who may log in."
  type        = string
}

variable "architecture" {
  description = "amd64 or arm64."
  type        = string
}

resource "azurerm_linux_virtual_machine_scale_set" "this" {
  name                   = "${var.name}-${var.role}"
  resource_group_name    = var.resource_group
  location               = var.location
  sku                    = var.size
  instances              = var.instances
  zones                  = ["1", "2", "3"]
  admin_username         = "operator"
  computer_name_prefix   = "${var.name}-${var.role}-"
  overprovision          = false # a machine too many would take viewers, and lose them a minute later
  single_placement_group = false
  upgrade_mode           = "Manual" # new machines get what is new; docs/deploy/azure.md says how old ones go
  tags                   = var.tags

  custom_data = base64encode(templatefile("${path.module}/../../cloud-init/node.yaml.tftpl", {
    script = base64encode(file("${path.module}/../../cloud-init/node.sh"))
    values = var.values
  }))

  admin_ssh_key {
    username   = "operator"
    public_key = var.ssh_public_key
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity_id]
  }

  source_image_reference {
    publisher = "Canonical"
    offer     = "ubuntu-24_04-lts"
    sku       = var.architecture == "arm64" ? "server-arm64" : "server"
    version   = "latest"
  }

  os_disk {
    caching              = "ReadOnly"
    storage_account_type = "StandardSSD_LRS"
  }

  network_interface {
    name                           = "primary"
    primary                        = true
    accelerated_networking_enabled = true # the card, not the hypervisor, moves packets

    ip_configuration {
      name                                         = "primary"
      primary                                      = true
      subnet_id                                    = var.subnet_id
      application_gateway_backend_address_pool_ids = var.application_gateway_pools
      load_balancer_backend_address_pool_ids       = var.load_balancer_pools

      dynamic "public_ip_address" {
        for_each = var.public_address ? [1] : []
        content {
          name = "media"
        }
      }
    }
  }

  # The node sees it as a Scheduled Event, drains, and acknowledges when it is empty.
  termination_notification {
    enabled = true
    timeout = "PT${var.drain_minutes}M"
  }

  scale_in {
    rule                   = "Default" # zones stay even; the node that goes is drained anyway
    force_deletion_enabled = false
  }

  boot_diagnostics {}

  lifecycle {
    ignore_changes = [instances]
  }
}

output "id" {
  description = "The scale set."
  value       = azurerm_linux_virtual_machine_scale_set.this.id
}
