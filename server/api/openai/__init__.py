"""The OpenAI Images API: the same generations, behind the door that the `openai` SDKs knock at."""
