# One address before the machines that run Sluice's own gateway. It passes connections on as they are; TLS ends at the gateway.

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

variable "host" {
  description = "First part of the name that Azure gives to the address."
  type        = string
}

resource "azurerm_public_ip" "this" {
  name                = "${var.name}-gateway"
  resource_group_name = var.resource_group
  location            = var.location
  allocation_method   = "Static"
  sku                 = "Standard"
  zones               = ["1", "2", "3"]
  domain_name_label   = var.host
  tags                = var.tags
}

resource "azurerm_lb" "this" {
  name                = "${var.name}-gateway"
  resource_group_name = var.resource_group
  location            = var.location
  sku                 = "Standard"
  tags                = var.tags

  frontend_ip_configuration {
    name                 = "public"
    public_ip_address_id = azurerm_public_ip.this.id
  }
}

resource "azurerm_lb_backend_address_pool" "this" {
  name            = "gateways"
  loadbalancer_id = azurerm_lb.this.id
}

resource "azurerm_lb_probe" "this" {
  name                = "gateway"
  loadbalancer_id     = azurerm_lb.this.id
  protocol            = "Tcp"
  port                = 443
  interval_in_seconds = 5
  number_of_probes    = 2
}

resource "azurerm_lb_rule" "this" {
  for_each = toset(["80", "443", "5443"])

  name                           = "port-${each.value}"
  loadbalancer_id                = azurerm_lb.this.id
  frontend_ip_configuration_name = "public"
  frontend_port                  = tonumber(each.value)
  backend_port                   = tonumber(each.value)
  protocol                       = "Tcp"
  backend_address_pool_ids       = [azurerm_lb_backend_address_pool.this.id]
  probe_id                       = azurerm_lb_probe.this.id
  idle_timeout_in_minutes        = 30
  tcp_reset_enabled              = true
}

output "host" {
  description = "Name of the front door."
  value       = azurerm_public_ip.this.fqdn
}

output "pool" {
  description = "Id of the pool."
  value       = azurerm_lb_backend_address_pool.this.id
  depends_on  = [azurerm_lb_rule.this]
}
