locals {
  front = local.azure_gateway ? module.application_gateway[0].host : module.load_balancer[0].host
}

output "publish" {
  description = "The seed's test: publish stream1 here."
  value       = "https://${local.front}/WebRTCAppEE/"
}

output "play" {
  description = "And watch it here."
  value       = "https://${local.front}:5443/WebRTCAppEE/player.html"
}

output "panel" {
  description = "Log in; the Cluster menu lists the nodes."
  value       = "https://${local.front}/"
}

output "vault" {
  description = "Where the registry's URL is: secret registry-url."
  value       = module.vault.uri
}
