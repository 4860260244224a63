# Azure's Application Gateway, as in the seed: 80 sends people to 443, 443 goes to origins, 5443 to edges. Media never comes by here.

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
  description = "The gateway's subnet; nothing else may be in it."
  type        = string
}

variable "identity_id" {
  description = "Identity that may read the certificate."
  type        = string
}

variable "certificate_secret_id" {
  description = "The certificate in the vault."
  type        = string
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

locals {
  # By port: which pool. Both speak HTTP to port 5080 of a node.
  doors = { 443 = "origin", 5443 = "edge" }
}

resource "azurerm_application_gateway" "this" {
  name                = "${var.name}-gateway"
  resource_group_name = var.resource_group
  location            = var.location
  zones               = ["1", "2", "3"]
  http2_enabled       = true
  tags                = var.tags

  sku {
    name = "Standard_v2"
    tier = "Standard_v2"
  }

  autoscale_configuration {
    min_capacity = 1
    max_capacity = 10
  }

  identity {
    type         = "UserAssigned"
    identity_ids = [var.identity_id]
  }

  gateway_ip_configuration {
    name      = "subnet"
    subnet_id = var.subnet_id
  }

  frontend_ip_configuration {
    name                 = "public"
    public_ip_address_id = azurerm_public_ip.this.id
  }

  dynamic "frontend_port" {
    for_each = toset(["80", "443", "5443"])
    content {
      name = "port-${frontend_port.value}"
      port = tonumber(frontend_port.value)
    }
  }

  ssl_certificate {
    name                = "gateway"
    key_vault_secret_id = var.certificate_secret_id
  }

  ssl_policy {
    policy_type = "Predefined"
    policy_name = "AppGwSslPolicy20220101"
  }

  dynamic "backend_address_pool" {
    for_each = local.doors
    content {
      name = backend_address_pool.value # the scale sets put their machines in
    }
  }

  probe {
    name                = "ready"
    protocol            = "Http"
    host                = "127.0.0.1"
    path                = "/readyz" # not good while a node drains, so it gets nobody new
    interval            = 5
    timeout             = 3
    unhealthy_threshold = 2

    match {
      status_code = ["200"]
    }
  }

  backend_http_settings {
    name                  = "nodes"
    port                  = 5080
    protocol              = "Http"
    cookie_based_affinity = "Enabled" # a session's own URL must come to its node
    probe_name            = "ready"
    request_timeout       = 86400 # WebSockets and events last as long as their viewers

    connection_draining {
      enabled           = true
      drain_timeout_sec = 900
    }
  }

  http_listener {
    name                           = "redirect"
    frontend_ip_configuration_name = "public"
    frontend_port_name             = "port-80"
    protocol                       = "Http"
  }

  dynamic "http_listener" {
    for_each = local.doors
    content {
      name                           = http_listener.value
      frontend_ip_configuration_name = "public"
      frontend_port_name             = "port-${http_listener.key}"
      protocol                       = "Https"
      ssl_certificate_name           = "gateway"
    }
  }

  redirect_configuration {
    name                 = "https"
    redirect_type        = "Permanent"
    target_listener_name = "origin"
    include_path         = true
    include_query_string = true
  }

  request_routing_rule {
    name                        = "redirect"
    priority                    = 30
    rule_type                   = "Basic"
    http_listener_name          = "redirect"
    redirect_configuration_name = "https"
  }

  dynamic "request_routing_rule" {
    for_each = local.doors
    content {
      name                       = request_routing_rule.value
      priority                   = request_routing_rule.key == "443" ? 10 : 20
      rule_type                  = "Basic"
      http_listener_name         = request_routing_rule.value
      backend_address_pool_name  = request_routing_rule.value
      backend_http_settings_name = "nodes"
    }
  }
}

output "host" {
  description = "Name of the front door."
  value       = azurerm_public_ip.this.fqdn
}

output "pools" {
  description = "Ids of the pools by role."
  value       = { for p in azurerm_application_gateway.this.backend_address_pool : p.name => p.id }
}
