# MongoDB on a machine of its own: with a password that it makes itself, TLS, a disk for the data, a backup every night, and no public address.

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

variable "subnet_id" {
  description = "The registry's subnet."
  type        = string
}

variable "identity" {
  description = "Identity with the right to write into the vault: id and client_id."
  type        = object({ id = string, client_id = string })
}

variable "vault_uri" {
  description = "Address of the vault, with a slash at the end."
  type        = string
}

variable "ssh_public_key" {
  description = "Who may log in."
  type        = string
}

variable "architecture" {
  description = "amd64 or arm64."
  type        = string
}

resource "azurerm_network_interface" "this" {
  name                = "${var.name}-registry"
  resource_group_name = var.resource_group
  location            = var.location
  tags                = var.tags

  ip_configuration {
    name                          = "private"
    subnet_id                     = var.subnet_id
    private_ip_address_allocation = "Dynamic" # and then as long as the interface is
  }
}

resource "azurerm_linux_virtual_machine" "this" {
  name                  = "${var.name}-registry"
  resource_group_name   = var.resource_group
  location              = var.location
  size                  = var.architecture == "arm64" ? "Standard_D2ps_v5" : "Standard_D2as_v5"
  admin_username        = "operator"
  network_interface_ids = [azurerm_network_interface.this.id]
  tags                  = var.tags

  custom_data = base64encode(templatefile("${path.module}/../../cloud-init/registry.yaml.tftpl", {
    script = base64encode(file("${path.module}/../../cloud-init/registry.sh"))
    values = {
      VAULT   = var.vault_uri
      CLIENT  = var.identity.client_id
      ADDRESS = azurerm_network_interface.this.private_ip_address
    }
  }))

  admin_ssh_key {
    username   = "operator"
    public_key = var.ssh_public_key
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity.id]
  }

  os_disk {
    caching              = "ReadWrite"
    storage_account_type = "StandardSSD_LRS"
  }

  source_image_reference {
    publisher = "Canonical"
    offer     = "ubuntu-24_04-lts"
    sku       = var.architecture == "arm64" ? "server-arm64" : "server"
    version   = "latest"
  }

  boot_diagnostics {}

  lifecycle {
    ignore_changes = [custom_data] # it is for the first boot; a change must not throw the machine away
  }
}

resource "azurerm_managed_disk" "data" {
  name                 = "${var.name}-registry-data"
  resource_group_name  = var.resource_group
  location             = var.location
  storage_account_type = "Premium_LRS"
  create_option        = "Empty"
  disk_size_gb         = 32
  tags                 = var.tags
}

resource "azurerm_virtual_machine_data_disk_attachment" "data" {
  managed_disk_id    = azurerm_managed_disk.data.id
  virtual_machine_id = azurerm_linux_virtual_machine.this.id
  lun                = 0
  caching            = "None" # a journal must be where it says it is
}

resource "azurerm_recovery_services_vault" "this" {
  name                = "${var.name}-backup"
  resource_group_name = var.resource_group
  location            = var.location
  sku                 = "Standard"
  tags                = var.tags
}

resource "azurerm_backup_policy_vm" "nightly" {
  name                = "nightly"
  resource_group_name = var.resource_group
  recovery_vault_name = azurerm_recovery_services_vault.this.name

  backup {
    frequency = "Daily"
    time      = "03:00"
  }

  retention_daily {
    count = 14
  }
}

resource "azurerm_backup_protected_vm" "this" {
  resource_group_name = var.resource_group
  recovery_vault_name = azurerm_recovery_services_vault.this.name
  source_vm_id        = azurerm_linux_virtual_machine.this.id
  backup_policy_id    = azurerm_backup_policy_vm.nightly.id
  depends_on          = [azurerm_virtual_machine_data_disk_attachment.data]
}

output "address" {
  description = "Private address of MongoDB."
  value       = azurerm_network_interface.this.private_ip_address
}
